"""The command line: serving, chatting and identities."""

from demo_corpus.grammar import Topic

TOPICS = (
    Topic(
        "serve",
        "Run gptnode serve --map FILE --identity FILE: the node loads only its own blocks and "
        "prints ready.",
        nouns=(
            "gptnode serve",
            "the serve command",
            "a block server",
            "serving",
            "the headless server",
            "a headless block server",
            "serve mode",
        ),
        actions=(
            "serve( some| my| the|) blocks",
            "{start} a (block |gptnode |)server",
            "(host|offer|provide|run|serve|contribute|donate) (some |my |a few |) (blocks|layers)"
            "( for others| on this machine| to the swarm|)",
            "{start} a (headless |)node",
            "{start} (the |)(server|serving)",
            "share my (machine|computer|memory|gpu|hardware)( with others|)",
            "run a (server|block server|headless node)",
            "let others use my (machine|computer|blocks)",
            "run blocks for (others|my friends|other people)",
            "take part in (a|the) swarm as a server",
            "(lend|give) my machine to the swarm",
        ),
        questions=(
            "(which|what) command (starts|runs|launches) (a|the|my) (block |)server",
            "how (can|could|does|would) my (machine|computer|laptop|node) "
            "(serve|host|run|offer|provide) (blocks|some blocks|layers)",
            "i (have|own) a (machine|computer) (and|that) (want|wants) to (offer|serve|host|run) "
            "blocks",
        ),
    ),
    Topic(
        "chat",
        "Run gptnode chat --map FILE --identity FILE and type your message; without a map it "
        "uses the bundled model on your own machine.",
        nouns=("gptnode chat", "the chat command", "the chat client"),
        actions=(
            "chat( with the model|)",
            "{start} (a|the) (chat|conversation|talk)",
            "talk to the (model|swarm)",
            "(chat|talk) over (a|the) (swarm|network)",
            "{start} (chatting|talking)",
            "use the chat",
            "join (a|the) swarm as a client",
            "have a (chat|conversation) with (the|a) (model|swarm)",
            "(speak|converse) with the (model|swarm)",
            "ask the model (something|a question)",
        ),
        questions=(
            "(which|what) command (starts|opens|begins|runs) (a|the) (chat|conversation)",
            "how (can|do|would) i (speak|talk|write) (to|with) (the model|a model|the swarm)( "
            "over the swarm|)",
        ),
    ),
    Topic(
        "prompt_option",
        "Run gptnode chat --prompt TEXT: it prints one answer to stdout and exits.",
        nouns=("the --prompt option", "--prompt", "the prompt option", "the prompt flag"),
        actions=(
            "get (just |only |)one (answer|reply|response)( and exit| only|)",
            "ask (just |only |)(one|a single) question (and (exit|quit)|from a script|)",
            "use gptnode (in|from) (a|my) (script|pipe|shell script|program|cron job)",
            "pass (the|a|my) prompt on the command line",
            "(chat|run it) without a terminal",
            "get (a|one) single answer",
            "script (gptnode|the chat)",
            "automate (a question|questions|gptnode)",
            "run (one|a single) prompt non-interactively",
            "(pipe|send) text (into|to) gptnode",
        ),
        questions=(
            "(i want|i need|give me|print) (one|a single|only one|just one|only a single) "
            "(answer|reply) (and|then) (exit|stop|quit|end)( the program|)",
            "(call|run|use) gptnode (from|in) (a|my) (shell script|makefile|program|bash "
            "script|loop)",
        ),
    ),
    Topic(
        "model_dir",
        "Give the folder with --model-dir DIR; it holds config.json, the tokenizer and the "
        "safetensors files.",
        nouns=(
            "--model-dir",
            "the --model-dir option",
            "a model folder",
            "the model folder",
            "the model directory",
            "a model directory",
        ),
        actions=(
            "(say|tell gptnode|specify|choose|set|give|name) (where (the|my) model is|"
            "the model (folder|directory|path))",
            "point gptnode (at|to) (my|the|a) (model|weights|folder)",
            "use (a|the) (folder|directory) (with|of) weights",
        ),
        questions=(
            "(in|from) which (folder|directory) (does gptnode|do you|will it) (load|read|take) "
            "(the |)(model|weights)",
            "how do i (tell|show) (gptnode|it) (where|in which folder) (the|my) "
            "(weights|model|model files) (are|is|lie|sit)",
            "where do(es|) (the|my) (weights|model|model files) (go|have to be|live|belong)",
            "(which|what) files (must|does|should) (a|the|be in the) model (folder|directory)"
            "( have| contain| need|)",
            "where does gptnode (look for|find) the (weights|model|model files)",
            "what (belongs|is) in (a|the) model (folder|directory)",
            "where (should|do|must) i put the (weights|model|model files)",
        ),
    ),
    Topic(
        "demo",
        "Run gptnode demo --peers N, or make demo: it starts a local swarm of server processes "
        "and a chat over them.",
        nouns=("gptnode demo", "the demo command", "make demo", "the demo"),
        actions=(
            "(try|test) (gptnode|it|this) (out |)(quickly|fast|on one machine|alone|on my own|"
            "on my laptop|)",
            "{start} (the|a) demo",
            "run a (local swarm|swarm on one {machine}|swarm locally|swarm on my laptop)",
            "see (gptnode|it) in action",
            "get a (quick |short |)demonstration",
            "{start} a local (test |)swarm",
            "try a swarm (without other machines|with one machine)",
            "play (with|around with) gptnode",
        ),
        questions=(
            "(what|which) (processes|things|servers) does (the demo|gptnode demo|make demo) "
            "(start|run|launch)",
            "i (only have|have just|own only) (one|a single) (machine|computer|laptop)( but want "
            "to try a swarm|)",
            "what is the (quickest|fastest|easiest|simplest) way to try (gptnode|it)( out|)",
            "is there a demo",
            "demo",
            "how many peers does the demo start",
            "can i try (gptnode|a swarm) with (only |just |)one (machine|computer)",
        ),
    ),
    Topic(
        "id",
        "Run gptnode id --identity FILE: it creates the identity if it is missing and shows "
        "your peer id and addresses.",
        nouns=(
            "gptnode id",
            "the id command",
            "my peer id",
            "my own peer id",
            "my id",
            "my node's id",
        ),
        actions=(
            "{make} (an|my|a new|a) (identity|identity file|peer id|key)",
            "{show} (my|my own|the|this node's) (peer id|id|peerid|address|addresses|multiaddr)",
            "(tell|know|learn) my (own |)(peer id|id|address)",
            "(give|tell) (a friend|others|somebody) my (peer id|address)",
            "{make} a (key|key pair|node key)",
        ),
        questions=(
            "(i need|make me|i want|how do i get) (an identity|a peer id|a key|a new identity)( "
            "for (my|this|a new) (node|machine|server)|)",
            "how (can|do) i (find|see|look up|learn|read) (out |)(what |)(my|my own) peer id( is|)",
            "where is my peer id",
            "(what|which) (peer id|id|address) (do i have|is mine)",
            "where do i (find|see|get) my (peer id|id|address|multiaddr)",
            "(where does|how does) my (peer id|node id) come from",
            "(what is|what's) the (id|peer id|address) of (my|this) (node|machine)",
        ),
    ),
    Topic(
        "identity",
        "An identity is the private key of a node in a file that only you can read; the peer id "
        "comes from it.",
        nouns=(
            "an identity",
            "the identity file",
            "an identity file",
            "the identity of a node",
            "my identity",
            "the node's private key",
            "the private key",
            "--identity",
            "the --identity option",
            "the key file",
        ),
        questions=(
            "(is|must|should) (my|the|an) (identity|identity file|key) (secret|kept secret|kept "
            "private|hidden)",
            "what (sort of |kind of |)(thing|data|secret) (is|lies) in (the|an) identity "
            "(file|key)",
            "what (is|are) (in|inside) the (identity|identity file|key file)",
            "(may|can|should) i (share|copy|send|publish|give away|show) my (identity|"
            "identity file|private key|key file)",
            "how (do i|should i) (protect|guard) my (identity|key|identity file)",
            "(must|should) the (identity|key) (file |)(be|stay) (secret|private)",
            "what permissions (does|should) the (identity|key) file (need|have)",
            "who (can|may) read my (identity|key|key file)",
            "is the identity (file |)(secret|private|a secret)",
        ),
    ),
    Topic(
        "peer_id",
        "A peer id is the name of a node: a text such as 12D3KooW that is derived from its "
        "public key, so nobody can fake it.",
        nouns=(
            "a peer id",
            "the peer id of a node",
            "12D3KooW",
            "a peerid",
            "the peer_id field",
            "a libp2p peer id",
            "the word peer id",
        ),
        questions=(
            "(can|could) (one|anyone|an attacker|somebody else) (forge|fake|imitate|copy|pretend "
            "to have) a peer id",
            "(what|why) (is|are) (this|that|the) (text|string|name) (starting|beginning) with "
            "12D3KooW",
            "what (does|do) (a peer id|peer ids) look like",
            "what are peer ids",
            "(can|could) (somebody|someone|a stranger|anybody) (fake|steal|forge|copy) "
            "(a|my) peer id",
            "how are (nodes|peers) (named|identified|recognised|told apart)",
            "what is a peer id (made|derived) from",
        ),
    ),
    Topic(
        "listen",
        "Pass --listen with a multiaddr, for example --listen /ip4/0.0.0.0/tcp/4001, and the "
        "server accepts connections there.",
        nouns=(
            "--listen",
            "the --listen option",
            "the listen address",
            "the listen option",
            "a listen address",
        ),
        actions=(
            "{change} the (port|listen port|listen address)",
            "listen on (a|another|a fixed|port 4001|all|a certain) (port|interface|address|"
            "interfaces|)",
            "(bind|listen) to (an|all|one) (address|interface|interfaces|port)",
            "use (another|a different|a fixed) port",
            "(say|choose|specify) where the server (listens|accepts connections)",
        ),
        questions=(
            "(listen|make the server listen|have my server listen|accept connections) on port "
            "(4001|4002|5001|8000|9000)",
            "(which|what) option (sets|changes|chooses|gives) the (port|listen address|address of "
            "a server)",
            "(which|what) port (does|will) (gptnode|the server|a server|it) (use|listen on|open)",
            "where does (the|a) server listen",
            "which (port|address) (is|gets) used for (incoming |)connections",
        ),
    ),
    Topic(
        "threads",
        "Pass --threads N to gptnode serve: N is the number of CPU threads that compute.",
        nouns=("--threads", "the --threads option", "the threads option"),
        actions=(
            "(limit|set|change|choose|reduce|raise) the (number of |)(threads|cpu threads|"
            "cores|cpu cores)",
            "use (more|fewer|all|only some|two) (threads|cores|cpu cores)",
            "(limit|reduce) (the |)cpu (use|usage|load)",
            "keep some cores free",
        ),
        questions=(
            "(make|let|have) (it|gptnode|the server) use (only |just |)(one|two|four|2|4|a few) "
            "(cpu |)(threads|thread|cores)",
            "how many (threads|cores|cpu cores) (does it|will it|does gptnode|does a server) use",
            "gptnode uses (all|too many of) my (cores|cpus|threads)",
            "(my|the) (machine|cpu) is (at 100 percent|too busy|hot|fully loaded)",
        ),
    ),
)
