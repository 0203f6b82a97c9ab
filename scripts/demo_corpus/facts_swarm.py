"""What gptnode is, and the words for who computes what."""

from demo_corpus.grammar import Topic

TOPICS = (
    Topic(
        "gptnode",
        "gptnode is a peer-to-peer inference node: several machines run one language model "
        "together, and each of them holds only some of its blocks.",
        nouns=(
            "gptnode",
            "this program",
            "this project",
            "this software",
            "this tool",
            "the gptnode (project|program|tool|software)",
            "gpt node",
            "this app",
        ),
        questions=(
            "(what|which) (kind|sort|type) of (software|program|tool|thing) is gptnode",
            "i (found|discovered|saw|just met|am new to) gptnode( today| just now|), what is it( "
            "about|)",
            "what does (gptnode|this program|this software|this tool) do",
            "what can gptnode do for me",
            "(give me|i want) (an overview|a summary|an introduction) (of|to) gptnode",
            "introduce gptnode",
            "what is gptnode all about",
        ),
    ),
    Topic(
        "why_gptnode",
        "With gptnode nobody needs to own a machine that holds the whole model: people share "
        "their machines, and each one gives memory for a few blocks.",
        questions=(
            "what (do|would|can|could) i (get|gain|win|have) (out of|from|by using|with) gptnode",
            "(one|give me a|name a|tell me a) (good |)reason (for|to use|to try) gptnode",
            "why (should|would|do) (i|we|people|anyone|anybody|one) (use|want|need|try) gptnode",
            "what (is|are) the (advantage|advantages|benefit|benefits|point) of gptnode",
            "what is gptnode (good|useful) for",
            "why use gptnode",
            "why (share|split|divide|distribute) (a|one|the) model (over|across|among|"
            "between) {machines}",
            "what problem does gptnode solve",
            "why not (just |)(run|use) one {machine}",
            "who (needs|is|would want) gptnode( for|)",
            "what do i gain from gptnode",
            "what is the (benefit|advantage|reason) of (sharing|splitting) a model",
            "(why is|what makes) gptnode (useful|helpful|interesting|worth it)",
        ),
    ),
    Topic(
        "how_it_works",
        "Your node turns text into token ids, sends activations through the blocks of each peer "
        "in order, and samples the next token from the result.",
        questions=(
            "(walk|take|lead) me through (how|the way) (gptnode|it|a token) (works|is "
            "made|answers|makes an answer)",
            "what (happens|goes on) (inside|internally|in there) when i (ask|send|type) (you "
            "|)(something|a question|a message)",
            "how does (gptnode|it|this program|the whole thing|this) (work|function)"
            "( inside| internally|)",
            "what happens (when|after) i (send|type|enter|write) a (prompt|message|question)",
            "how is (an answer|a token|text) (made|computed|produced|generated)",
            "(explain|describe) the (way|path|journey) of a (prompt|message|token)",
            "how do the (machines|peers|nodes) work together",
            "what goes on (inside|behind the scenes|under the hood)",
            "how do (you|nodes|peers) (make|compute|produce) (a token|an answer)",
            "(explain|describe) how gptnode works",
            "how does inference work here",
            "what is the (principle|mechanism) (of|behind) gptnode",
        ),
    ),
    Topic(
        "blocks_map",
        "A BlocksMap is one JSON file that every node of a swarm shares: it says which peer runs "
        "which blocks of the model.",
        nouns=(
            "a blocksmap",
            "a blocks map",
            "the blocksmap",
            "the blocks map",
            "a block map",
            "the map file",
            "blocksmap.json",
            "the blocksmap file",
            "the map of blocks",
            "BlocksMap",
            "the map",
        ),
        questions=(
            "(which|what) (file|json|json file) (lists|names|holds|contains) (the |all "
            "|)(peers|blocks|routes)( and (their|the) blocks|)",
            "what (part|role) (has|does) (the|a) {map} (play|have)( in this| here|)",
            "what is (in|inside|written in|stored in) (a|the) {map}",
            "where (is|does) it (say|written|recorded) which peer (runs|has|holds) which blocks",
            "how does (a|my|the) node know which peer (runs|has|serves) which block",
            "which file (says|tells|describes) who (runs|serves|has) (what|which blocks)",
            "what does (a|the) {map} (contain|describe|hold|say|look like|list)",
            "what (kind|sort) of file is (a|the) {map}",
            "how do nodes (learn|find out|agree on) who (runs|does) what",
        ),
    ),
    Topic(
        "block",
        "A block is one Transformer layer of the model: attention and an MLP. The bundled model "
        "has 8 of them.",
        nouns=(
            "a block",
            "a transformer block",
            "a layer",
            "a transformer layer",
            "one block of the model",
            "a single block",
            "a model block",
        ),
        questions=(
            "how many (transformer |)(blocks|layers) (are|exist|sit) (there |)in (the|this|your) "
            "(small|tiny|demo|bundled|) model",
            "how many (blocks|layers) (does|has) (the|this) (bundled|demo|small|) model (have|got)",
            "what is (a block|a layer) made of",
            "what (is|are) (inside|in) a (block|layer)",
            "what does a (block|layer) (contain|consist of|compute)",
            "number of (blocks|layers) (in|of) the (demo |bundled |)model",
            "what are (blocks|layers)",
            "(is|are) a block (and|the same as) a layer( the same|)",
        ),
    ),
    Topic(
        "span",
        "A span is a run of neighbouring blocks, such as blocks 0 to 3, that one peer computes "
        "in one go.",
        nouns=(
            "a span",
            "a span of blocks",
            "the span of a peer",
            "a block span",
            "a range of blocks",
            "a block range",
            "the word span",
        ),
        questions=(
            "(what do you call|what is the name of|name for) (blocks that|several blocks that|a "
            "run of blocks that|neighbours that) (one peer runs|are adjacent|follow each "
            "other|belong together)",
            "what are spans",
            'what does "blocks": "0-3" mean',
            "what is a (group|row|series|sequence|run) of (neighbouring|adjacent|"
            "consecutive) blocks called",
            "how do you call (several|many|neighbouring) blocks (in a row|on one peer)",
        ),
    ),
    Topic(
        "hop",
        "A hop is one stop on the route: the peer that runs the next span, with the replicas "
        "that can take its place.",
        nouns=(
            "a hop",
            "one hop",
            "a hop in a route",
            "the next hop",
            "a single hop",
            "the word hop",
        ),
        questions=(
            "(could|can|would) you (clear up|make clear|explain) (the word hop|what hops are|this "
            "hop thing)",
            "what are hops",
            "how (many hops|long) (does|is) a (route|hop)( have|)",
            "what is one (stop|step|stage|leg) (on|of) the (route|way|path) called",
            "what is a hop made of",
        ),
    ),
    Topic(
        "route",
        "A route is the list of hops that together cover every block of the model, from the "
        "first to the last.",
        nouns=(
            "a route",
            "the route",
            "a route through the swarm",
            "a route in the map",
            "the route of a chat",
            "the path through the peers",
            "the word route",
        ),
        questions=(
            "(of|from) what is a route (made|built|composed)",
            "what (is|parts are) (in|inside) a route",
            "what are routes",
            "which way do (activations|the data) (take|go|travel)",
            "what is the (path|way) (through|over|across) the (peers|nodes|swarm|machines)",
            "in which order are the (peers|nodes) (visited|used|asked)",
            "what does a route (consist|made) of",
            "what covers every block",
        ),
    ),
    Topic(
        "peer",
        "A peer is another gptnode process, known by its peer id; it may run blocks for you or "
        "use the blocks that you run.",
        nouns=(
            "a peer",
            "a node",
            "another node",
            "a peer in gptnode",
            "the other node",
            "a peer in the swarm",
            "a gptnode node",
            "the word peer",
        ),
        questions=(
            "(who|what|whom) do you (call|mean by) (a|by a) (peer|node)",
            "what are (peers|nodes)",
            "who are the (peers|nodes|others)",
            "what is the (role|task|job) of a peer",
            "is a peer a (person|machine|program)",
        ),
    ),
    Topic(
        "swarm",
        "A swarm is all the nodes that share one BlocksMap and together run a model.",
        nouns=(
            "a swarm",
            "the swarm",
            "a gptnode swarm",
            "a swarm of nodes",
            "a local swarm",
            "the word swarm",
            "the whole swarm",
        ),
        questions=(
            "(what is|what's|which thing is) (a|this|that) swarm (supposed|meant) to (be|mean)",
            "everybody talks about (a|the) swarm",
            "what are swarms",
            "how do you call (all the|a group of) (nodes|peers)( together|)",
            "what (is|does) a (group|set|bunch|collection|network) of (nodes|peers)( called|)",
            "who (belongs to|is in|is part of) (a|the) swarm",
            "which nodes (belong to|are part of|make up|form) (a|the) swarm",
        ),
    ),
    Topic(
        "replica",
        "A replica is a further peer that holds the same blocks; it takes over when the first "
        "one does not answer.",
        nouns=(
            "a replica",
            "the replica of a peer",
            "a spare peer",
            "a backup peer",
            "a second peer for the same blocks",
            "a replica in a route",
            "the word replica",
            "a stand-in peer",
            "a fallback peer",
        ),
        questions=(
            "who (steps in|jumps in|helps|answers instead|comes in) (when|if) (the first|a|one) "
            "peer (is silent|stays silent|does not answer|fails|is down)",
            "(for what|why) (do|would|should) i (want|need|have) (a replica|replicas|spare peers)",
            "what are (replicas|backups)",
            "why (should|would|do) i (list|name|have|add) "
            "(two|several|more) peers (for|on) (a|one|the same) (route|block|span)",
            "what (are|is) (a replica|replicas|backup peers|spare peers) (good |)for",
            "who takes over when (a|the first) peer (does not answer|{dies})",
            "can two peers (hold|run|have|serve) the same blocks",
            "what is redundancy( here|)",
            "how is the swarm (made |)(redundant|fault tolerant)",
        ),
    ),
    Topic(
        "ring",
        "In a ring route each peer sends its output straight to the next one and the last "
        "answers you, which saves half of the way.",
        nouns=("a ring route", "the ring", "ring routing", "a ring", "star and ring"),
        questions=(
            "what (is|are) (good|better|the advantage|the benefit|nice) (about|of|with|in) (a "
            "|)ring( route| routes| routing|)",
            "why (is|would|use) a ring( route|)( better| faster|)",
            "do peers (send|pass|forward) (activations|data) (directly|straight) to each other",
            "what is the difference between (a |)star and (a |)ring",
            "how can the (network |)latency be (reduced|halved|lower)",
        ),
    ),
    Topic(
        "truth_ids",
        "The token ids are the only truth: caches and routes can be rebuilt from them at any "
        "time by a new prefill.",
        questions=(
            "from what (can|could|will) (a|the|my) (cache|session|chat|state) be "
            "(rebuilt|restored|recovered|made again)",
            "how (can|do) (you|i|nodes) (rebuild|restore|recover) (a|the|lost|my) "
            "(cache|caches|chat|state)",
            "what is the only truth",
            "what (must|has to) be kept to (rebuild|restore) (a|the) (chat|session|cache)",
            "(from|out of) what (is|are) (a cache|caches|the cache) rebuilt",
            "how (is|are) (a lost|the|lost) (cache|caches|state) (rebuilt|restored|recovered)",
            "which state (matters|is essential|counts)",
            "(can|how can) a (cache|route) be rebuilt",
            "what is disposable in gptnode",
        ),
    ),
)
