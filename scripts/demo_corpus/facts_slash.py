"""The slash commands of a chat."""

from demo_corpus.grammar import Topic


def _slash(name: str) -> tuple[str, ...]:
    return (f"/{name}", f"the /{name} command", f"the {name} command", f"the command /{name}")


TOPICS = (
    Topic(
        "help_command",
        "Type /help: it lists all slash commands of the chat with one line for each.",
        nouns=(*_slash("help"), "a slash command"),
        actions=(
            "{show} (all |the |)(slash |chat |)commands",
            "get help( in the chat|)",
            "(list|learn|discover) the commands",
        ),
        questions=(
            "(a|is there a|give me a|show me a) (list|table|summary|overview) of (the |all "
            "|)(slash |chat |)commands",
            "what (will|can) /help (do|tell me|show)( for me|)",
            "(which|what) (slash |chat |)commands (are there|exist|do you have|can i (type|"
            "use)|does the chat (have|know))",
            "help",
            "i need help",
            "commands",
            "what can i type (in|into) (the|a) chat",
            "(list|show|name) (all |the |)(slash |chat |)commands",
            "are there (any |)(slash |)commands",
            "what are slash commands",
            "what does a slash do",
            "where is the help",
        ),
    ),
    Topic(
        "exit_command",
        "Type /exit or press Ctrl-D to leave the chat; the peers free your session.",
        nouns=_slash("exit"),
        actions=(
            "(leave|quit|exit|close|end|get out of) (the|a|this) {chat}",
            "(leave|quit|exit|close) (gptnode|the program|it)",
            "get out( of here|)",
        ),
        questions=(
            "(get|come|go) (out of|away from) (this|the|here|gptnode)( chat| program|)",
            "(when|for what) (do|would) i use /exit",
            "exit",
            "quit",
            "how do i quit",
            "i want (to go|out)",
            "what does ctrl-d do",
            "how do i get back to my shell",
        ),
    ),
    Topic(
        "peers_command",
        "Type /peers: it lists the peers of the map with their blocks, whether they are "
        "connected, and their latency.",
        nouns=_slash("peers"),
        actions=(
            "{show} (the|all|my|connected) (peers|nodes)( and their (state|health|latency)|)",
            "{show} (which|what) (peers|nodes) (are connected|are online|are up|i am connected "
            "to|are alive)",
            "(see|know|check|find out|tell) (whether|if) a peer is (connected|"
            "online|up|alive|reachable|there)",
            "{show} (the |)(latency|ping|health|state) of (a|the|my|each) (peers|peer|node)",
        ),
        questions=(
            "(which|what) command (shows|lists|prints|displays) (the|my|all|connected) peers",
            "what (does|will) /peers (show|print|list|tell)( me|)",
            "who is (connected|online|there)",
            "(which|what) (peers|nodes) am i connected to",
            "are (my|the|all) peers (connected|online|up|alive)",
            "how many peers (are connected|do i have|are online)",
        ),
    ),
    Topic(
        "connect_command",
        "Type /connect PEER_ID MULTIADDR, and the chat dials that peer at that address.",
        nouns=_slash("connect"),
        actions=(
            "(connect|dial|link|hook up)( to|) (a|another|one more|some) (peer|node|server)"
            "( by hand| myself| manually| from the chat|)",
            "(open|make|establish) a connection to (a|another) (peer|node)",
            "(dial|connect to|reach|call) a peer at (a|another|a new|a different) (address|"
            "multiaddr)",
            "reconnect (to a|a) peer",
        ),
        questions=(
            "(i want|how) to (dial|connect|call) (a certain|one|some|a particular|a "
            "specific|this) peer( myself| by hand|)",
            "a peer (moved|has moved|changed) (to a new|its) address",
            "(a|my) peer has (a new|another|a different) (address|ip)",
        ),
    ),
    Topic(
        "clear_command",
        "Type /clear: it forgets the chat so far and starts with an empty context.",
        nouns=_slash("clear"),
        actions=(
            "(clear|empty|reset|wipe|erase|forget|delete|flush) the (chat|context|conversation|"
            "history|memory)",
            "{start} (a new chat|over|again|afresh|from scratch|"
            "from the beginning|a fresh chat|a new conversation)",
            "make (you|it|the model) forget (everything|the chat|what i said|all of this)",
        ),
        questions=(
            "(wipe|drop|reset|clean) (this|the whole|everything in the|my) "
            "(chat|conversation|context)",
            "i (want|would like) to (start|begin) (anew|over|again|fresh)( with an empty context|)",
            "forget (everything|all|what i said|it all)",
            "new chat",
            "can we start (over|again|fresh)",
            "(i want|can i have) a (clean slate|fresh start|new chat)",
        ),
    ),
    Topic(
        "save_command",
        "Type /save FILE: the chat is stored as CSV, the token ids only, and an old file is kept "
        "if that fails.",
        nouns=(*_slash("save"), "the csv file", "the saved file"),
        actions=(
            "{save} (the|my|this|a) (chat|conversation|context|session|talk|dialogue)"
            "( to a file| to disk| as csv| for later|)",
            "(put|get) (the|my) chat (in|into) a (file|csv)",
            "keep (this|my) (chat|conversation)( for later| for tomorrow|)",
            "{save} the (token ids|tokens|ids)( of the chat|)",
        ),
        questions=(
            "(put|write|store|keep) (this|our|my|the whole) (conversation|chat|talk|dialogue) "
            "(in|to|into) a file",
            "(i want|can i) (have|get) a (file|copy) of (the|this|our) (chat|conversation)",
            "(which|what) format (does|do) a saved (chat|context) have",
            "in which format is the chat (saved|stored)",
            "save",
            "what is in (a|the) (saved chat|csv|csv file)",
            "what happens when a save fails",
        ),
    ),
    Topic(
        "load_command",
        "Type /load FILE: the saved ids are checked against the model, then the chat goes on "
        "where it was.",
        nouns=_slash("load"),
        actions=(
            "{load} (a|the|my|an old|a saved|an earlier) (chat|conversation|context|session)"
            "( from a file| from disk| from csv|)",
            "(continue|resume|go on with|pick up|carry on with) (a|my|an old|yesterday's|"
            "a saved|an earlier) (chat|conversation|session)",
            "(get|go) back (to|) (my|an) old chat",
            "{load} (the |)(token ids|a csv file|saved ids|a csv)",
        ),
        questions=(
            "(go on|continue|carry on|resume) (with |)(the|a|my) (chat|conversation|session) "
            "(of|from|that i saved) (yesterday|last week|earlier|before)",
            "what (can|do) i do with /load",
            "where is my (old|saved) chat",
            "load",
            "can i (go on|continue) (later|tomorrow|where i stopped)",
            "what is checked when (i load|loading) a (chat|file)",
        ),
    ),
    Topic(
        "map_command",
        "Type /map: it shows the BlocksMap in use, with the peer of every span.",
        nouns=_slash("map"),
        actions=(
            "{show} (the|my|the current|the loaded) {map} (in|inside|during|from|while in) (the|"
            "a) chat",
            "{show} the (current|loaded|active) {map}",
            "{show} (who|which peer) (runs|serves) what while (i chat|chatting)",
        ),
        questions=(
            "(which|what) (slash |)command (shows|prints|displays|draws) (the|my) {map}( in use| "
            "in the chat|)",
            "show (me |)the {map} (of|in|inside) this chat",
            "which {map} (is in use|is loaded|am i using|do you use|is active)",
            "(which|what) map is (this|that|it) chat using",
            "can i (see|show) the map without leaving the chat",
        ),
    ),
    Topic(
        "reload_command",
        "Type /reload: it reads the BlocksMap again and builds the new route; if the map is bad, "
        "the old one stays.",
        nouns=_slash("reload"),
        actions=(
            "(reload|re-read|reread|refresh|update) (the|my|a) {map}",
            "use (a|my|the) (changed|new|edited|updated) {map}( without (leaving|restarting)|)",
            "(apply|activate|take over|pick up) (a change|changes|my edits|my changes) (of|to|"
            "in) the {map}",
            "switch to a new map (in|during) (a|the) chat",
        ),
        questions=(
            "(when|why) (do|should|must) i (need|use|type) /reload",
            "how (does|will) (the|my) (chat|client|node) (notice|take over|see|use|learn "
            "about|get) (the|my) (changes|new map|edits|changed map)",
            "i (changed|edited|updated) (the|my) {map}",
            "must i restart (when|after) (the|my) {map} (changes|changed)",
            "reload",
        ),
    ),
    Topic(
        "stats_command",
        "Type /stats: it shows tokens per second, the time of each hop, and how full the "
        "context is.",
        nouns=(*_slash("stats"), "the statistics"),
        actions=(
            "{show} (the |)(speed|statistics|stats|timings|performance|numbers|tokens per second)",
            "(measure|know|see|check) how (fast|quick) (it|the model|the swarm|the "
            "answer|gptnode) is",
            "(see|find) (the slow|the slowest|which) (hop|peer) (is slow|)",
            "{show} how full the context is",
            "(benchmark|measure) the (swarm|speed|hops)",
        ),
        questions=(
            "(what|which) (numbers|figures|values|data) (does|do) /stats (show|give|print|have)( "
            "me|)",
            "how (do|can) i (see|measure|learn) (the|my) (tokens per second|speed|rate)",
            "how (fast|quick) (is it|are you|is this|was that)",
            "what is the speed",
            "how many tokens per second( do i get| is that|)",
            "how (much|many) (context|of the context|tokens) (have i used|is used|are left|"
            "is left|did i use)",
            "which (peer|hop) is (slow|the slowest)",
            "how long does each hop take",
            "stats",
        ),
    ),
    Topic(
        "system_command",
        "Type /system TEXT: it sets the system message that the model reads before the chat.",
        nouns=(
            *_slash("system"),
            "the system message",
            "a system message",
            "the system prompt",
            "a system prompt",
        ),
        actions=(
            "{change} (the|a|my) system (message|prompt|text)",
            "give (you|the model) (instructions|a role|a persona|a personality|a character|"
            "general instructions)",
            "tell (you|the model) how to (behave|answer|talk|act)",
            "(change|set) your (behaviour|role|personality|style)",
        ),
        questions=(
            "what (can|do) i do with /system",
            "(what|how) (is|does) /system( for| work| used for|)",
            "can you (play a role|be a pirate|act as a teacher)",
        ),
    ),
    Topic(
        "set_command",
        "Type /set OPTION VALUE, for example /set temperature 0.7, and it holds from the next "
        "answer on.",
        nouns=_slash("set"),
        actions=(
            "{change} (an option|options|a setting|settings|a parameter|parameters|the "
            "sampling options) (in|during|inside) (the|a) chat",
            "{change} (an option|a setting|a parameter|my settings|the settings)",
            "{change} the (temperature|seed|top-k|top-p) (in|during|inside|within) (the|a) chat",
            "(turn up|turn down|raise|lower) the temperature (in|during) the chat",
        ),
        questions=(
            "how (do|can|does one) (i |)use /set( to change (something|an option|a value)|)",
            "where are the (settings|options|preferences)( of the chat|)",
            "can i change (settings|options) while (chatting|i chat)",
        ),
    ),
    Topic(
        "retry_command",
        "Type /retry: the last answer is dropped and the model writes a new one.",
        nouns=_slash("retry"),
        actions=(
            "(get|have|ask for|see|want) (another|a different|a new|a better) (answer|reply|"
            "response)( to the same question|)",
            "(regenerate|redo|rewrite|repeat) (the|an|the last|your last) (answer|reply|response)",
            "(let|make) (you|the model) (try|answer) again",
            "try the (last |same |)(question|prompt) again",
        ),
        questions=(
            "(that|the|this|your|your last) (answer|reply|response) (was|is|seems) "
            "(bad|poor|wrong|weak|strange|not useful), (try again|another one|give me another "
            "one|once more)",
            "(another|a new|a different|a second) (answer|reply|try|attempt)( please|)",
            "i (do not|don't) like (the|this|that|your) answer",
            "(the|that|this) answer (was|is) (bad|wrong|not good|poor)",
            "retry",
            "can you try again",
            "give me (another|a different|a better) (answer|reply)",
        ),
    ),
    Topic(
        "undo_command",
        "Type /undo: it takes back your last message and the answer to it.",
        nouns=_slash("undo"),
        actions=(
            "(undo|take back|revert|unsend|withdraw|remove|delete) (my|the) (last|latest|"
            "previous) (message|turn|question|prompt|line)",
            "(go|step) back one (turn|message|step)",
            "(unsay|withdraw) something",
            "correct (my|a) (last |)(message|question)",
        ),
        questions=(
            "(take back|cancel|delete|undo) (what|the thing|the last thing) i (just "
            "|)(wrote|said|typed|sent)",
            "i (made a typo|typed something wrong|sent it too early|made a mistake) in my "
            "(last |)message",
            "i sent the wrong (message|question|text)",
            "undo",
            "(ignore|forget|scratch|drop) my last (message|question)",
        ),
    ),
)
