"""What happens between a prompt and its answer, and the model that does it."""

from demo_corpus.grammar import Topic

TOPICS = (
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
            "what (becomes of|happens with|happens to) (a|the) (session|session's memory|cache of "
            "a session|memory) (when|after|once) (the|a) (stream|connection) (closes|ends|breaks)",
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
            "(what|which things) (is|are|gets|get) (stored|kept|saved|held) in the kv cache",
            "what (job|task|role|purpose) (has|does) the kv cache( have|)",
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
            "how (does|is) (a|the) (paged |)(kv |)cache (grow|extended|get longer|get bigger|made "
            "longer)",
            "what (is|do you call) one (piece|part|unit|page) of the (kv |)cache",
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
            "why (do i|must i|does one) (have to |)wait (so long |)for the first (token|word)",
            "what (happens|is going on|is done|goes on) (during|in|at|while) (prefill|prefilling)",
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
            "what (does|is done in|happens in|happens during) the (decode|decoding|second) "
            "(phase|step|part)( do|)",
            "what (is|comes) next, after (the |)prefill",
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
            "what (do|does) (blocks|a block|one block|layers) (pass|hand|give|send) (on |)(to "
            "each other|to one another|to the next one|onwards)",
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
            "what (counts as|makes up|do you call|is called) a token",
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
            "(which|what) (part|component|piece) (splits|cuts|breaks|divides) (my |the "
            "|)(text|words|prompt) (into|in) (tokens|pieces|ids)",
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
            "(what|why) (is|do we need|do i need|does a model need) (a|the) chat template( "
            "needed| used| there|)( for|)",
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
            "how (big|long|large) (may|can|could) (a|the|this|our) (chat|conversation|talk) "
            "(grow|become|get|be)",
            "(how much|how many tokens) (fits|fit|can be kept|does the model keep) in "
            "(the|its|your) (context|memory)",
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
            "(can|may|could) i (run|use|load|try) (my own|another|a different|any|a bigger) "
            "(llama|model|llama model|hugging face model)( with gptnode| here|)",
            "(what|which) (kinds|types|sorts) of (model|models|llama) (can|does) (gptnode|it) "
            "(run|load|handle|support)",
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
            "(is|does) (there |it come with )(a|any) model (included|built in|in the "
            "repository|with it|out of the box)",
            "(tell me about|what is|describe) the model (that|which) (ships with|is in|is part "
            "of|comes inside|is included in) gptnode",
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
