"""Setting up and changing a swarm: maps, peers, installation, logs."""

from demo_corpus.grammar import Topic

TOPICS = (
    Topic(
        "map_check",
        "Run gptnode map check FILE: it reports every mistake in the map with its place in the "
        "JSON and what to write instead.",
        nouns=("gptnode map check", "map check", "the map check command"),
        actions=(
            "(check|validate|verify|test|lint|proofread) (my|the|a) {map}",
            "(find|look for|detect) (mistakes|errors|typos|problems|faults) in (my|the|a) {map}",
            "(see|know|make sure) (if|that|whether) (my|the) {map} is (valid|correct|right|"
            "okay|fine|good)",
        ),
        questions=(
            "(which|is there a|what is the) command (that |to |)(finds|find|checks|reports) "
            "(mistakes|errors|problems) in (a|my|the) {map}",
            "(before|how) (i use|do i check) (my|the|a) {map}, (how do i check it|is it right|can "
            "i test it)",
            "is my {map} (valid|correct|right|okay|fine|good)",
            "(my|the) {map} (has|contains) (an error|a mistake|errors|mistakes)",
            "(what|something) is wrong (with|in) my {map}",
        ),
    ),
    Topic(
        "map_show",
        "Run gptnode map show FILE: it draws a table and a picture of who serves which blocks.",
        nouns=("gptnode map show", "map show", "the map show command"),
        actions=(
            "{show} (a picture|a table|a drawing|a diagram|an overview) of (the|my|a) {map}",
            "(draw|visualise|visualize|picture|render|plot) (my|the|a) {map}",
            "{show} (who|which peer) (serves|runs|has|holds) (what|which blocks|each block) "
            "in (a|the|my) {map}",
            "{show} (the|a|my) map file in the terminal",
            "(get|see) a (table|picture|diagram) of the (blocks|peers and blocks)",
        ),
        questions=(
            "who serves (which|what) blocks( and where| in my map|)",
            "(a|can i have a|give me a|i want a) (picture|drawing|table|diagram|image) of (who "
            "serves what|the blocks|the swarm|my map)",
        ),
    ),
    Topic(
        "write_map",
        'Write peers with their ids and addresses, the model, and routes such as "blocks": '
        '"0-3" with a peer; blocksmap.example.json shows it.',
        actions=(
            "(write|create|make|compose|author|edit|begin) (a|my|my own|my first|the) "
            "(blocksmap|blocks map|map|map file|blocksmap file)",
            "(divide|split|spread|distribute|assign|share out) (the |)(blocks|layers|model) "
            "(over|among|between|across|to) (the |my |two |three |)(peers|machines|nodes)",
            "(say|define|decide|choose) which peer (runs|gets|serves) which blocks",
            "give (a|each|my) peer (its|some|more) blocks",
            "define (a route|routes)",
            "set up routes",
        ),
        questions=(
            "how (are|do i|can i) (the |)(blocks |)(assigned|assign "
            "blocks|given|mapped|distributed) (to peers|to machines)( in the file| in the map|)",
            "how (does one|do i|would i) (write|make|start|create) (a|my|the) (first |new |own "
            "|)(blocksmap|map|map file)( from scratch| by hand|)",
            "what must i (write|put) (in|into) (a|the|my) {map}",
            "is there an example (of a|) {map}",
            "(what is|what's) the (format|syntax|structure|schema) of (a|the) {map}",
            "where is an example (map|blocksmap)",
        ),
    ),
    Topic(
        "add_peer",
        "Add its peer id and multiaddr to peers in the BlocksMap, name it in a route, and give "
        "the new map to every node.",
        actions=(
            "{add} (a|another|a new|one more|a third|an extra) {peer}( to (the|my) (swarm|map|"
            "network)|)",
            "(grow|extend|enlarge|expand|scale) (the|my) (swarm|network)",
            "(let|have|get) (a friend|another machine|a new machine|a new node) (join|to join)"
            "( the swarm| us|)",
            "use (a second|a third|another) machine",
            "(join|connect) (two|several|more) machines( together|)",
            "make the swarm (bigger|larger)",
        ),
        questions=(
            "(what|which) (steps|things) (are needed|do i take|are necessary) (to add|for) "
            "(a|another|one more|a new) peer",
            "how (does|do) (another|a new|my other|one more) (machine|node|computer) "
            "(get|come|go) into the (swarm|map)",
            "i (have|own|got|found) (one more|an extra|a spare|another) "
            "(machine|computer|laptop|server)( for the swarm|)",
            "my friend wants to (run blocks|join|help|contribute)( too|)",
            "i (bought|have|got) (a new|another|a second) (machine|computer|server)",
        ),
    ),
    Topic(
        "remove_peer",
        "Take the peer out of peers and routes in the BlocksMap, let another peer run its "
        "blocks, and share the new map.",
        actions=(
            "{remove} (a|an old|one|some) {peer}( from (the|my) (swarm|map|network)|)",
            "(kick|ban|block|exclude|expel|retire) a (peer|node)( from the swarm| out|)",
            "(shrink|reduce) (the|my) swarm",
            "make the swarm smaller",
            "take a (machine|node) out of (service|the swarm)",
        ),
        questions=(
            "(a|one|this|that) (machine|node|peer|server) (has to|must|should|will|shall|wants "
            "to) (leave|go|be removed|be taken out|quit)( the swarm| the map|)",
            "how (can|does|do) (a|one|i take a) (machine|node|peer) (leave|out of) the swarm",
            "(a|my) friend (wants to leave|leaves|left)( the swarm|)",
            "a peer should (leave|go|no longer take part)",
        ),
    ),
    Topic(
        "install",
        "Clone the repository and run make demo: it makes a virtual environment, installs "
        "gptnode and starts the demo.",
        nouns=("the installation",),
        actions=(
            "install (gptnode|it|this|the program)",
            "set (gptnode|it) up( on my machine|)",
            "get started( with gptnode|)",
            "set up gptnode",
            "get gptnode( running|)",
            "build gptnode",
            "install gptnode on (a new|my|another) machine",
        ),
        questions=(
            "how do i (get|put|install|bring) gptnode (on|onto|to) (my|a|this) "
            "(machine|computer|laptop|system)",
            "(what|which) (is|comes) (the |)first( step| thing|)( to install it| to do|)",
            "what (do i need|are the requirements) (to install|to run|for) (gptnode|it)",
            "(which|what) python version (do i need|is required|is needed|works)",
            "where do i (begin|start)",
            "(first steps|getting started)",
            "installation",
            "does it (run|work) on (linux|a mac|my laptop)",
        ),
    ),
    Topic(
        "run_tests",
        "Run make test: it installs what is needed and runs the whole test suite.",
        nouns=("make test", "the test suite"),
        actions=(
            "(run|start|execute) (the |all |all the |)(tests|test suite|unit tests)",
            "(test|check) (my changes|the code|the installation)",
            "(see|check) (that|if|whether) (everything works|all tests pass|the tests pass)",
        ),
        questions=("(start|run|execute|launch) (the|all) (tests|test suite|checks)",),
    ),
    Topic(
        "stop_server",
        "Press Ctrl-C or send SIGTERM: the server ends its sessions, closes its streams and "
        "exits cleanly.",
        actions=(
            "(shut down|stop|end|quit|kill|turn off|terminate|close|halt) (a|the|my) (block |"
            "gptnode |)(server|serve process|serving node)",
            "stop serving( blocks|)",
            "shut (a|the|my) server down( cleanly| properly|)",
        ),
        questions=(
            "(what is|which is) the (clean|right|proper|correct|safe) way to (shut "
            "down|stop|end|turn off) (a|my|the) (block |)server",
            "what happens on (sigterm|a sigterm|sigint)",
            "sigterm",
            "how does a server (shut down|exit|terminate)",
            "can i (just |)(kill|stop) (a|the) server",
        ),
    ),
    Topic(
        "logs",
        "Start the server with --log-level debug: it then writes structured logs about every "
        "session and step.",
        nouns=(
            "--log-level",
            "the logs",
            "the --log-level option",
            "structured logs",
            "the log level",
        ),
        actions=(
            "{show} (more |the |debug |)(logs|log output|log messages|details of a server)",
            "(debug|trace|inspect|diagnose) (a|my|the) (server|node|problem|error)",
            "{change} the log level",
            "(get|see) (more details|verbose output|debug output)",
        ),
        questions=(
            "(more|give me more|i need more|i want more) (detailed |)(logs|details|log lines)( "
            "from (a|the|my) server|)",
            "where are the logs",
            "does (the|a) server (write|have|keep) (logs|a log)",
            "what (is the server doing|does a server log)",
            "how do i find out what (went wrong|a server does|happened)",
        ),
    ),
    Topic(
        "license",
        "gptnode is free software under the MIT license: use it, change it and share it.",
        nouns=("the license", "the licence of gptnode", "the license of gptnode"),
        questions=(
            "under (which|what) license (may i use it|is it released|is it distributed|does it "
            "come|do you ship it)",
            "what are the (terms|conditions) of use",
            "is gptnode (free|open source|free software|free of charge)",
            "(which|what) licen(se|ce) (does it have|is it under|does gptnode have|applies)",
            "(may|can) i (use|change|modify|share|copy|sell) (gptnode|it|the code)( at work|"
            " commercially|)",
            "how much does (gptnode|it) cost",
            "do i have to pay( for it|)",
            "what does it cost",
        ),
    ),
)
