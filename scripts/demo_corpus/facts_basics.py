"""What gptnode is, and the words it uses."""

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
        "session",
        "A session is one stream from a client to one peer: the peer keeps a KV cache for it and "
        "frees the memory when the stream ends.",
        nouns=(
            "a session",
            "a session on a peer",
            "the session of a chat",
            "a block session",
            "one session",
            "the word session",
        ),
        questions=(
            "what are sessions",
            "when does a session (end|stop|finish|close|start)",
            "how long does a session (live|last|stay|run)",
            "(when|how) is (the memory|memory) of a (session|chat|client) "
            "(freed|released|given back)",
            "what happens to (the memory|the cache) (when|after) (a|the) (client|stream|"
            "connection) (leaves|ends|closes|goes away)",
            "who owns the kv cache",
            "is there one cache (per|a|for each) client",
        ),
    ),
    Topic(
        "kv_cache",
        "The KV cache keeps the keys and values of the tokens so far, so that a new token needs "
        "only its own work.",
        nouns=(
            "the kv cache",
            "a kv cache",
            "the key value cache",
            "kv caching",
            "the cache",
            "the cache of keys and values",
            "KV",
            "the attention cache",
            "the kv-cache",
        ),
        questions=(
            "why (do we|does it|is there) (keep|store|cache|remember) (the |)(keys and "
            "values|old tokens)",
            "where are (the |)keys and values (kept|stored|held)",
            "what does the cache (hold|keep|store|contain)",
            "why are (later|new|next) tokens (cheap|fast|quick)",
            "how does (it|gptnode|a peer) remember (earlier|old|previous|past) tokens",
            "what is kept in memory for (earlier|past|old) tokens",
        ),
    ),
    Topic(
        "page",
        "A page is a fixed number of token places in the KV cache: the cache grows page by page, "
        "and what is in it is never copied.",
        nouns=(
            "a page",
            "a page of the kv cache",
            "a cache page",
            "the paged kv cache",
            "paging",
            "a paged cache",
            "the page size",
            "a page of memory",
        ),
        questions=(
            "what are (pages|cache pages)",
            "how does the (kv |)cache grow",
            "why is the (kv |)cache (paged|in pages|split into pages|cut into pages)",
            "how is (cache memory|memory for the cache) (allocated|taken|reserved)",
            "what happens when the cache (gets bigger|gets longer|needs more room)",
            "is the (kv |)cache copied when it grows",
        ),
    ),
    Topic(
        "prefill",
        "Prefill is the first phase: all tokens of the prompt go through the blocks in chunks "
        "and fill the KV cache.",
        nouns=(
            "prefill",
            "the prefill",
            "the prefill phase",
            "prefilling",
            "chunked prefill",
            "prompt processing",
            "the word prefill",
        ),
        questions=(
            "what happens (to|with) (my|the) prompt (first|at first|before the first token)",
            "how is (my|the) prompt (processed|read|handled|taken in|digested)",
            "why does the first token take (longer|so long|a while|more time)",
            "what is the first phase",
            "why do i wait (for|before) the first token",
            "what comes before decode",
            "what is time to first token",
        ),
    ),
    Topic(
        "decode",
        "Decode is the second phase: one token at a time goes through all blocks, and each new "
        "token is sampled from the last result.",
        nouns=(
            "decode",
            "the decode phase",
            "decoding",
            "a decode step",
            "the decoding phase",
            "token by token generation",
            "the word decode",
        ),
        questions=(
            "what (comes|happens|follows) after (the |)prefill",
            "what is the second phase",
            "how are (new|the next) tokens (made|produced|generated)",
            "(why are|are) tokens (made|produced|generated|written) one (at a time|by one|"
            "after another)",
            "how does (generation|writing the answer) go on",
            "what happens for (each|every) new token",
        ),
    ),
    Topic(
        "activation",
        "Activations are the numbers that one block hands to the next: one vector for every token.",
        nouns=(
            "an activation",
            "activations",
            "the activations",
            "a hidden state",
            "hidden states",
            "the hidden state",
            "the word activation",
        ),
        questions=(
            "what (do|data do) (peers|nodes) (send|pass|give|exchange|hand) (to |)each other",
            "what (is|gets|data is) (sent|passed|transferred|transmitted|carried) "
            "(between|from peer to) (peers|peer|nodes|blocks)",
            "what travels (over|across|through) the (network|wire)",
            "what does a block (hand|pass|give|send) to the next( block|)",
            "which numbers (go|travel|move) between (blocks|peers|nodes)",
        ),
    ),
    Topic(
        "token",
        "A token is a piece of text with a number, the token id; the model reads and writes "
        "only such ids.",
        nouns=("a token", "a token id", "tokens", "token ids", "the tokens", "the word token"),
        questions=(
            "how does (the|a) model (read|see) text",
            "what does (the|a) model (read|see|write)( really|)",
            "what are token (ids|numbers)",
            "(is|are) a token (a word|and a word the same)",
            "how (is|does) text (turned|become) (into |)numbers",
        ),
    ),
    Topic(
        "tokenizer",
        "The tokenizer cuts text into tokens and joins tokens to text again; it runs only on "
        "your own node.",
        nouns=(
            "the tokenizer",
            "a tokenizer",
            "tokenizer.json",
            "tokenization",
            "tokenizing",
            "bpe",
            "byte pair encoding",
            "the word tokenizer",
        ),
        questions=(
            "(who|what|which part) (turns|cuts|splits|converts) text (into|to) (tokens|ids|pieces)",
            "where does the tokenizer run",
            "how is text (cut|split|broken) (up |)(into tokens|into pieces|up)",
            "how do (tokens|ids) (become|get back to) text",
            "which (part|file) (joins|turns) (tokens|ids) (to|into|back to) text",
        ),
    ),
    Topic(
        "chat_template",
        "The chat template writes the turns of a chat as the text that the model was trained "
        "on, with marks for who speaks.",
        nouns=(
            "the chat template",
            "a chat template",
            "chatml",
            "the prompt template",
            "a prompt format",
            "the prompt format",
            "im_start",
            "the template of a model",
        ),
        questions=(
            "how does the model know who (speaks|is speaking|said what|is talking)",
            "how are (turns|messages|roles) (written|formatted|marked|encoded|turned into text)",
            "which (template|format) (is used|does the model use|do you use)",
            "what are chat templates",
            "(why|how) (is|are) my (messages|message) formatted",
        ),
    ),
    Topic(
        "context",
        "The context is every token of the chat so far. The bundled model can hold 2048 of them.",
        nouns=(
            "the context",
            "the context window",
            "the context length",
            "the context size",
            "a context window",
            "the maximum context",
            "the token limit",
        ),
        questions=(
            "how (long|big|large) (can|may) (a|my|the) (chat|conversation|prompt|context) "
            "(be|get|become)",
            "how many tokens (fit|can i use|are allowed|can the model (hold|take|remember|read))",
            "how much (text|of the chat) can (you|the model) remember",
            "what is the (maximum|limit|max) (length|number of tokens|prompt length)",
            "how (long|big) is (the|your) (context|memory|window)",
            "what happens (if|when) the (chat|context) gets too long",
        ),
    ),
    Topic(
        "model_support",
        "gptnode runs Llama models, versions 1 to 3, from an ordinary Hugging Face model folder.",
        nouns=("the list of supported models",),
        actions=(
            "use (my own|another|a different|a bigger|a larger|my|a custom) model",
            "run (llama|llama 3|llama 2|tinyllama|a llama)",
            "load a (hugging face|huggingface) model",
            "use a hugging face (folder|model)",
            "(switch to|swap in|change to) (another|a bigger|a different) model",
        ),
        questions=(
            "(which|what|what kind of) models (can|does|are) (i run|gptnode run|"
            "gptnode support|supported|it support|work|you support|i use|compatible)",
            "does (it|gptnode) (run|support|work with) (llama|llama 3|mistral|hugging face models)",
            "which (architectures|model families|families|model types) (are "
            "supported|work|can i use|does gptnode know)",
        ),
    ),
    Topic(
        "bundled_model",
        "The bundled model is a tiny Llama with 8 blocks that was trained for the demo, so that "
        "gptnode runs without a download.",
        nouns=(
            "the bundled model",
            "the demo model",
            "the small model",
            "the built-in model",
            "the included model",
            "the model that comes with gptnode",
            "the default model",
        ),
        questions=(
            "which model (is|comes) (bundled|included|built in|with gptnode|in the box)",
            "do i (need|have) to download (a|any|some) (model|weights)",
            "how (big|large|small|many parameters) is (the|this) (bundled|demo|built-in) model",
            "where does the (demo|bundled) model come from",
            "who trained (the|this) (demo |bundled |)model",
            "can i (try|use) gptnode without (a download|downloading anything|internet)",
            "is (a|any) model (included|shipped|bundled|delivered)",
        ),
    ),
)
