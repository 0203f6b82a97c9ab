"""The files of a model, and what they need of a machine."""

from demo_corpus.grammar import Topic

TOPICS = (
    Topic(
        "fingerprint",
        "The fingerprint identifies a model by its configuration, file headers and samples of "
        "its tensors; every node must have the same.",
        nouns=(
            "the fingerprint",
            "a fingerprint",
            "the model fingerprint",
            "a model's fingerprint",
            "the fingerprint of a model",
        ),
        questions=(
            "(why|what for) (are|do nodes compare|does gptnode compare|compare) (model |the "
            "|)fingerprints( compared|)",
            "how (does|do) (gptnode|nodes|it) (know|check|make sure|verify) (that|whether|if) "
            "(all|two|the) (nodes|peers) (have|run|use) the same model",
            "how is a model (identified|recognised|recognized)",
            "what are fingerprints",
        ),
    ),
    Topic(
        "dtype",
        "Weights can be f32, f16 or bf16; bf16 needs half the memory of f32, and the dtype of "
        "the map is used.",
        nouns=(
            "a dtype",
            "the dtype",
            "bf16",
            "bfloat16",
            "the data type",
            "half precision",
            "the dtype field",
            "f16",
            "float16",
        ),
        actions=(
            "{change} the (dtype|precision|data type|number format)",
            "use (half precision|bf16|f16|float16|f32|less precision)",
        ),
        questions=(
            "(which|what) (dtype|precision|type) (do|must|can|should) (weights|my weights|the "
            "tensors|tensors) (have|be|use)",
            "(are|can) (the |)weights (be |)(in |)(f32|f16|bf16|float16|bfloat16)",
            "(which|what) (dtypes|dtype|precisions|data types|number formats|precision) (are "
            "supported|can i use|are there|does it use|should i use)",
            "what is the difference between (bf16|f16) and f32",
            "is (quantization|int8|4 bit) supported",
        ),
    ),
    Topic(
        "safetensors",
        "Safetensors files hold the weights; gptnode maps them into memory and touches only the "
        "tensors of its own blocks.",
        nouns=(
            "safetensors",
            "a safetensors file",
            "model.safetensors",
            "the safetensors format",
            "the weights file",
            "mmap",
            "memory mapping",
        ),
        questions=(
            "(does|must|will|has) (each|every|one|a single) (node|peer|machine|server) (have to "
            "|to |)(load|read|hold|store) (the entire|the whole|the complete|all of the) model",
            "how are (the |)weights (loaded|read|stored)",
            "(does|must|will) (a|each|every|my) "
            "(node|peer|machine) (load|read|hold|need) (the whole|the entire|the full|all of "
            "the) model",
            "(which|what) (file |)format (do|does) (the |)weights have",
            "what does a (node|peer) load",
            "in what format are weights (stored|kept)",
            "does a server load all (weights|blocks|tensors)",
        ),
    ),
    Topic(
        "memory_need",
        "A node needs memory for the weights of its own blocks and for the KV caches of its "
        "sessions, not for the whole model.",
        questions=(
            "how much (ram|memory) (must|should|will|would) (a|one|my|every|each) "
            "(node|machine|server|computer|peer) (have|need|want|take|use)",
            "will (it|the blocks|my blocks) fit (into|in) (memory|ram|4 gb|my machine)",
            "how much (memory|ram) (do i need|does (a node|it|a server|gptnode|a peer|each "
            "machine) (need|use|take))",
            "how many (gigabytes|gb|megabytes) (do i need|does (it|a node) (need|take))",
            "what (does a node need|is needed) in memory",
            "(what|which) (hardware|machine|computer) do i need( for (a node|gptnode)|)",
            "is my (machine|computer|laptop) (big|large|strong|good) enough",
            "how big must (a|my|each) (machine|computer) be",
            "memory (requirements|needs|use|usage|footprint)( of a node|)",
            "can i run (a big model|gptnode) (on|with) (a small machine|little memory|8 gb)",
        ),
    ),
    Topic(
        "device",
        "Pass --device to choose where blocks are computed, for example --device cpu or --device "
        "cuda.",
        nouns=("--device", "the --device option", "the device option"),
        actions=(
            "use (a|my|the) (gpu|graphics card|cuda|nvidia card|video card)",
            "(run|compute) (on|with) (a gpu|the gpu|the cpu|cuda|my graphics card)",
            "{change} the (device|compute device)",
        ),
        questions=(
            "(can|could|will|does) (my|a|the) (graphics card|gpu|nvidia card) (be used|help|do "
            "the work|compute the blocks)",
            "do i need a (gpu|graphics card)",
            "does it (work|run) (without a gpu|on a cpu|on a gpu)",
            "is a (gpu|graphics card) (needed|necessary|required|used)",
            "(can|does) gptnode (use|support) (a gpu|cuda|gpus|my graphics card)",
        ),
    ),
    Topic(
        "fingerprint_mismatch",
        "Two nodes have different model files: copy the same model folder to both, then start "
        "them again.",
        nouns=("a fingerprint mismatch", "fingerprint mismatch", "the fingerprint error"),
        problems=(
            "the (fingerprints|fingerprint) (do not match|don't match|does not match|differ|"
            "differs|is different|are different|is wrong)",
            "(i get|i see|it says|the error is|gptnode says|there is) (a |)fingerprint mismatch",
            "(two|the|my) (nodes|peers) have (different|other|not the same) (models|model "
            "files|weights)",
            "(a|the) peer has (another|a different|the wrong) model",
        ),
        questions=(
            "why (do i|does it|did i) (see|get|report|show|have) a (fingerprint mismatch|mismatch "
            "of fingerprints|wrong fingerprint)",
        ),
    ),
    Topic(
        "out_of_memory",
        "Give that node fewer blocks in the map, use bf16, or allow fewer sessions, so that less "
        "memory is needed.",
        nouns=("out of memory", "an out of memory error", "the out of memory error"),
        problems=(
            "(a|my|the) {peer} (runs|is|ran) out of (memory|ram)",
            "(memory|ram|the memory) is (full|not enough|too small|exhausted|used up)",
            "(i get|it says|gptnode says|the error is) out of memory",
            "(the|a|my) (process|server|node) is killed by the system",
            "(i|my machine|my node) (do not|does not) have enough (memory|ram)",
            "the blocks do not fit( in memory| into ram|)",
        ),
        actions=("(use|need) less (memory|ram)", "(save|reduce) (memory|ram)( on a node|)"),
        questions=(
            "(my|the|a) (server|node|machine|peer) (ran|runs|is running|went) out of (memory|ram)",
            "not enough (memory|ram)( on my node| for the blocks|)",
        ),
    ),
    Topic(
        "missing_tensor",
        "A model file is incomplete or damaged: the error names the file and the tensor, so "
        "download or copy that file again.",
        nouns=(
            "a missing tensor",
            "a truncated file",
            "the error missing tensor",
            "a damaged model file",
        ),
        problems=(
            "(a|one|some) (tensor|weight|tensors) (is|are) missing",
            "(a|the|my) (safetensors |model |weights |)file is (damaged|truncated|broken|"
            "corrupt|corrupted|incomplete|too short)",
            "(i get|it says|gptnode says|the error is) (missing tensor|truncated file|wrong "
            "shape|corrupt file)",
            "(a|the) tensor has (the|a) wrong shape",
            "(the |)(weights|model) (cannot|can't) be (loaded|read)",
        ),
        questions=(
            "(one|some) of (the|my) (safetensors|weights|model) files (is|are|looks|seems) "
            "(broken|damaged|incomplete|corrupt|bad|truncated)",
            "(my|the) (download|model) (was|is) (incomplete|interrupted|broken|damaged)",
        ),
    ),
    Topic(
        "load_fails",
        "The file does not fit this model or holds a wrong id: the error says which, and your "
        "current chat stays as it is.",
        nouns=("a failed load",),
        problems=(
            "(i cannot|i can't|it cannot) (load|open|restore) (my|a|the|an old) (saved |)(chat|"
            "csv|conversation)",
            "(/load|loading|loading a chat|restoring) (fails|does not work|failed|gives an error)",
            "(a|my|the) saved chat (does not load|is refused|is rejected|cannot be loaded)",
            "(the|a) csv (holds|has) (a wrong|an unknown|a bad) (id|token id)",
        ),
        questions=(
            "(my|the|an old) (saved |)(chat|csv|file|conversation) (won't|does not|doesn't|will "
            "not|cannot) (load|open|be loaded|be restored)",
        ),
    ),
)
