"""When something goes wrong between nodes."""

from demo_corpus.grammar import Topic

TOPICS = (
    Topic(
        "peer_dies",
        "The chat turns to a replica, sends the token ids again and goes on; no printed token is "
        "lost or repeated.",
        nouns=("failover",),
        problems=(
            "(a|one|my|another) {peer} {dies}( during a chat| in the middle of an answer|"
            " while i chat|)",
            "(a|one) of (my|the) {machines} {dies}",
            "(a|the) {peer} (loses power|is switched off|reboots|is unplugged|hangs)",
            "i (lose|lost) (a peer|the connection|a node)( during an answer|)",
        ),
        questions=(
            "(a|one|the) (server|peer|node|machine) (crashed|died|went down|failed|was turned "
            "off|was shut down|lost power)( during my chat| while i was chatting| just now|)",
            "what if (a|one|some) (server|peer|node|machine) (crashes|dies|fails|goes away|is "
            "turned off)( during a chat| while i chat|)",
            "(is|will) (my|the) (answer|chat) (be |)(interrupted|lost|broken|gone) (if|when) "
            "(a|one) (machine|peer) {dies}",
            "does (gptnode|a chat|my chat|the chat) survive (a|the) (crash|failure|loss|"
            "outage)( of a (peer|server)|)",
            "do i lose (my chat|anything|tokens|my answer) (if|when) a {peer} {dies}",
            "what is failover",
            "is (my chat|the chat|the answer|anything) lost (if|when) a {peer} {dies}",
        ),
    ),
    Topic(
        "reroute",
        "Edit the BlocksMap so that another peer runs those blocks, then type /reload; the chat "
        "continues over the new route.",
        nouns=("rerouting", "a reroute"),
        actions=(
            "(reroute|route|go|work|get) around (a|the) (failed|dead|broken|missing|slow) peer",
            "(replace|swap|exchange|substitute) a (failed|dead|broken|missing|slow) (peer|node|"
            "machine|server)",
            "(move|shift|transfer|reassign|hand over) blocks (to|from one peer "
            "to) another( peer| machine| node|)",
            "(change|switch|redirect|reroute) (the|a) route( by hand| of a chat|)",
            "reroute( a chat| the chat| blocks|)",
            "give (its|a dead peer's|the) blocks to another (peer|machine|node)",
        ),
        questions=(
            "i want to (use|take|try) (another|a different) peer (instead of|for|in place of) "
            "(a|the|my) (broken|failed|dead|missing) (one|peer|node)",
            "(a|one|my) peer (has failed|failed|is broken|is dead), how (do|can) i (route|get|go) "
            "around it",
            "(exchange|substitute|replace) (the|one|a) (peer|node) (that|which) "
            "(failed|died|broke|is down)",
            "(a|the) peer (is|stays) dead for good and has no replica",
        ),
    ),
    Topic(
        "connection_refused",
        "Nothing listens at that address: check that the server is running, and that the map has "
        "its IP and port.",
        nouns=("connection refused", "the error connection refused", "a refused connection"),
        problems=(
            "(the|my|a) connection (is|was|gets) refused",
            "(i get|i see|it says|the error is|"
            "gptnode says|there is|the message is) connection refused",
            "(i|the chat|my node) (cannot|can't|can not|could not) (connect|reach|connect to|"
            "dial) (a|the|my|to a|to the) {peer}",
            "(dialing|dialling|connecting to) (a|the) peer fails",
            "(a|the|my) peer is (unreachable|not reachable)",
        ),
        questions=(
            "(why|when) (is|was) (the|my) connection refused",
            "(my chat|my client|gptnode|the client|it) (can't|cannot|does not|could not|fails to) "
            "(reach|get to|find|contact|connect to) (the|a|my|that) (server|peer|node|machine)",
        ),
    ),
    Topic(
        "not_allowed",
        "Your peer id is not in the map of that node: add it to peers or clients there and reload.",
        nouns=("peer not allowed", "the error peer not allowed"),
        problems=(
            "(the|my|a) peer is not allowed",
            "(i get|i see|it says|the error is|gptnode says|"
            "there is|the message is) (peer |)not allowed",
            "(a|the|another) {peer} (refuses|rejects|denies|turns away|does not let in) (me|my "
            "node|my peer|my id)",
            "(i am|my node is|my peer is) (denied|rejected|not "
            "authorised|not authorized|not permitted|not let in|unknown there)",
            "access is denied",
            "permission to connect is denied",
        ),
        questions=(
            "(the|a|one|another) (node|peer|server|machine) (rejects|refuses|rejected|refused|"
            "does not want|does not accept) (me|us|my peer|my connection|my node)",
            "why (am i|is my node|is my peer) (refused|rejected|not allowed|denied|not accepted)",
        ),
    ),
    Topic(
        "busy",
        "The server has no room for another session: the chat waits and tries again, or uses a "
        "replica if there is one.",
        nouns=("a busy server", "the busy error", "server busy"),
        problems=(
            "(the|a|my) {peer} is (busy|full|overloaded|at its limit|too busy|occupied)",
            "(i get|i see|it says|the error is|gptnode says|the message is) (the server is |)busy",
            "(too many|many) (clients|sessions|people|users) (use|are on) (the|a|one) {peer}",
        ),
        questions=(
            "what (do|should|can) i (do|try) (about|with|against) (a|the) (busy|full|overloaded) "
            "(server|peer|node)",
        ),
    ),
    Topic(
        "gap",
        "Some blocks have no peer: add a route for them, then run map check again until no gap "
        "is reported.",
        nouns=("a gap in the map", "a gap", "a gap error", "a hole in the map"),
        problems=(
            "(the|my) {map} has (a gap|gaps|a hole|holes)",
            "(some|a few) blocks (are missing|"
            "have no peer|are not served|are uncovered|nobody runs)( in (the|my) map|)",
            "(i get|it says|gptnode says|the error is) (a gap|blocks are missing|gap in routes)",
            "(nobody|no peer) (runs|serves|has) (some blocks|a block|block 5|one block)",
            "the routes do not cover all blocks",
        ),
        questions=(
            "(a|some|several|two|many) blocks (are without|have not got|lack|miss|do not "
            "have|have) (a|any|no) peer",
            "map check (reports|shows|finds|complains about) (a gap|gaps|missing blocks)",
            "why (is|are) there (a gap|gaps|holes) in (my|the) {map}",
        ),
    ),
    Topic(
        "wrong_peer_id",
        "The node at that address has another identity: run gptnode id there and put the peer id "
        "it shows into the map.",
        nouns=("a wrong peer id", "the error wrong peer id", "a peer id mismatch"),
        problems=(
            "the peer id (is wrong|does not match|is not right|is different|differs|is not the "
            "expected one)",
            "(i get|it says|gptnode says|the error is) (wrong peer id|peer id "
            "mismatch|a wrong peer id)",
            "(another|a different|the wrong) (peer|node) answers at (that|the|an) address",
            "(a|the) (peer|node) has (a new|another|a different) (identity|peer id|id)",
        ),
        questions=(
            "(why|when) does it (say|report|complain) (about a wrong|wrong|that it is the wrong) "
            "peer id",
            "(why is|is) the peer id (wrong|not the right one|different|not matching)",
        ),
    ),
    Topic(
        "slow",
        "Type /stats to find the slowest hop, then give that peer fewer blocks or take a peer "
        "that is nearer.",
        nouns=("a slow answer",),
        problems=(
            "(the|an|my) (answer|answers|reply|chat|model|swarm) (is|are|comes|gets|becomes) "
            "(slow|very slow|too slow|so slow|sluggish|slowly)",
            "it (is|runs|gets) (slow|so slow|too slow|very slowly)",
            "(tokens|words) (come|appear) (slowly|very slowly)",
            "i (wait|have to wait) (long|a long time|forever|ages)( for each token|)",
        ),
        actions=(
            "(speed up|accelerate|make faster) (the|my) (answers|chat|swarm)",
            "(get|have) (faster|quicker) answers",
            "make (it|gptnode|the swarm) (faster|quicker|run faster)",
            "improve (the |)(speed|performance|latency)",
        ),
        questions=(
            "why (are|is|do|does) (the|your|all|everything|my) "
            "(answers|answer|replies|reply|tokens|chat) (come |)(so |too |very |)(slow|slowly)",
            "(can|how can) (i|we) (make|get) (the|my|your) (answers|answer|replies|chat) (to come "
            "|come |)(faster|quicker|sooner)",
            "(what|anything) can i do (about|against) (slow|sluggish) (answers|replies|peers)",
            "why is (it|gptnode|the answer|this|everything) (so |too |)slow",
            "(gptnode|it) (lags|is lagging|crawls|takes forever)",
        ),
    ),
    Topic(
        "no_replica",
        "No other peer has those blocks: start a server for them and add it as a replica, or "
        "wait until the peer is back.",
        nouns=("the error no replica", "no replica"),
        problems=(
            "(there is|i have|a span has) no replica( left| for some blocks|)",
            "(i get|it says|gptnode says|the error is) no replica( left|)",
            "(a|the) (failed|dead|lost) peer has no (replica|backup|stand-in|spare)",
            "(all|the|both) replicas (are|have) (gone|failed|down|dead|offline)",
        ),
        questions=(
            "(what|where) (now|to go), (no|without a) replica( is left| left| there|)",
            "(is there|what is) (a|the) (remedy|way out|help) without (a |any |)replica",
        ),
    ),
    Topic(
        "bad_map",
        "The message names the place in the JSON, for example routes[3].peer_id, and says what "
        "to write instead.",
        nouns=("a map error", "a json error", "an error in the map", "routes[3].peer_id"),
        problems=(
            "(the|my) {map} (is|gets) (rejected|refused|invalid|not accepted|not valid)",
            "(the|my) {map} (cannot|can't|could not) be (loaded|read|parsed|opened)",
            "(i get|there is|it says) (a|an) (json|map|syntax|parse) error",
            "gptnode (complains about|does not like|does not accept) (the|my) {map}",
        ),
        questions=(
            "(gptnode|the node|the chat|it) (will not|won't|does not|doesn't|cannot|can't|refuses "
            "to|fails to) (load|read|accept|take|open|parse) (my|the|this) {map}",
            "where is the (mistake|error) in my {map}",
            "how do i read (a|the) (map|json) error",
        ),
    ),
    Topic(
        "port_in_use",
        "Another program uses that port: choose a free one with --listen, or stop the other "
        "program.",
        nouns=("the error address already in use", "address already in use", "a port conflict"),
        problems=(
            "(the|my|a) port is (in use|taken|already used|occupied|already taken|not free)",
            "(i get|it says|gptnode says|the error is) (address already in use|port in use)",
            "(the|a) server cannot (bind|open the port|listen)",
            "another (program|process|server) (has|uses|blocks|holds) (the|my) port",
        ),
        questions=(
            "(the|my) server (says|reports|prints) (that |)(the |)(port|address) (is |)(already "
            "|)(in use|taken|used)",
        ),
    ),
    Topic(
        "identity_permissions",
        "gptnode refuses an identity that others can read: run chmod 600 on the file and start "
        "again.",
        nouns=("the identity permissions error",),
        problems=(
            "(my|the) (identity|identity file|key|key file) (is refused|is rejected|is not "
            "accepted|has wrong permissions|has bad permissions|is readable by others|can be "
            "read by others|is too open)",
            "(i get|it says|gptnode says|the error is) (permissions are too open|others can "
            "read the identity|identity file is readable by others)",
        ),
        questions=(
            "(it|gptnode|the node) (says|complains|reports) (that |)(others|other "
            "users|everybody|other people) can read (my|the) (identity|key|identity file|key file)",
            "(why|when) does gptnode (refuse|reject) (my|the|an) (identity|key|identity file)",
        ),
    ),
    Topic(
        "timeout",
        "The peer took too long: see /peers for its state; the chat tries the next replica, and "
        "/reload builds the route anew.",
        nouns=("a timeout", "the timeout error", "deadline exceeded"),
        problems=(
            "(a|the|my) (peer|request|step|hop|connection) (times out|timed out|took too long|"
            "takes too long|does not answer in time)",
            "(i get|it says|gptnode says|the error is|there is) (a timeout|timeout|deadline "
            "exceeded)",
            "(nothing|no answer) comes( for a minute| at all|)",
            "the chat (hangs|is stuck|freezes|waits forever)",
        ),
        questions=(
            "why (does|did|do|is there) (my |the |a |)(request|peer|step|answer|"
            "timeout|connection)( time out| timing out|)",
            "(what|why) (is|was) (the|this) timeout( for|)",
        ),
    ),
)
