"""The network: connections, trust and privacy, weights."""

from demo_corpus.grammar import Topic

TOPICS = (
    Topic(
        "multiaddr",
        "A multiaddr is an address that names every layer, for example /ip4/192.168.1.20/tcp/4001.",
        nouns=(
            "a multiaddr",
            "a multiaddress",
            "the multiaddr of a peer",
            "multiaddr",
            "/ip4/127.0.0.1/tcp/4001",
            "the address format",
            "the word multiaddr",
        ),
        actions=("(write|give|spell) (an|the|a peer's) (address|network address)( of a peer|)",),
        questions=(
            "(how|from what) is (a|the) (multiaddr|multiaddress|address of a peer) (built|made|composed|written|structured)( up|)",
            "what (does|is|do) (the |)(/ip4|/tcp|ip4|tcp)( and /tcp|)( part|) (in an address|mean|in a multiaddr)( mean|)",
            "what does a (multiaddr|multiaddress|peer address) look like",
            "(what|which) (format|form|syntax) do(es|) (addresses|an address|the addr field) have",
            "(give|show) me an example of (a multiaddr|an address)",
            "what does /ip4 mean",
            "how do i read an address like /ip4/10.0.0.2/tcp/4001",
            "what are multiaddrs",
        ),
    ),
    Topic(
        "libp2p",
        "gptnode talks libp2p: TCP for transport, Noise for encryption and Yamux for many "
        "streams on one connection.",
        nouns=(
            "libp2p",
            "yamux",
            "the network protocol",
            "the protocol",
            "the transport",
            "the network stack",
        ),
        questions=(
            "(over|through|with) (which|what) (protocol|network|channel) do (the |)(nodes|peers) (talk|speak|communicate|exchange data)",
            "(which|what) (protocol|protocols|network library|transport|network) (does "
            "gptnode use|do (nodes|peers) (speak|use)|is used)",
            "how do (nodes|peers|machines) (talk|communicate|speak)( to each other| with each "
            "other|)",
            "does it use (tcp|udp|quic|http|websockets)",
            "what (is|runs) under the (network|hood of the network)",
            "how are (nodes|peers) linked( together|)",
        ),
    ),
    Topic(
        "noise",
        "Every connection is encrypted and authenticated with Noise, so somebody on the wire "
        "sees only sizes and times.",
        nouns=(
            "noise",
            "noise encryption",
            "the noise protocol",
            "the encryption",
            "the noise handshake",
        ),
        questions=(
            "(are|is) (messages|packets|all data|everything|the stream) encrypted( on the way| between nodes| on the wire|)",
            "(are|is) (my|the) (connections|messages|link) (secured|encrypted|protected) (against|from) (listeners|eavesdroppers)",
            "is (the|my|a) (connection|traffic|data|network traffic|link) (encrypted|secure|"
            "protected|safe)",
            "how is (traffic|the connection|data) (encrypted|protected|secured)",
            "(can|could) (somebody|someone|my provider|a stranger|an eavesdropper|"
            "my isp) (read|listen to|spy on|intercept|sniff) (the|my) (traffic|connection|"
            "network|wire)",
            "(which|what kind of) encryption (is used|do you use)",
            "do you encrypt (traffic|anything|connections|data)",
            "what can (somebody|someone) on the (wire|network) see",
        ),
    ),
    Topic(
        "privacy",
        "The peers that run your blocks see your activations and can infer your text from them, "
        "so use only peers whom you trust.",
        nouns=("privacy", "the privacy of my chat"),
        questions=(
            "(can|could|may) (anyone|the owner of a peer|an operator|a machine's owner|a stranger who runs blocks|they) (read|see|watch|spy on) (my|the|our) (messages|text|chat|words|input)",
            "(do|can) (the|those) (people|machines|servers) (that|who) run (my|the) blocks (see|know|learn) what i (type|write|say)",
            "how (secret|confidential|anonymous) (is|are) (my|our) (chat|chats|conversation|messages)",
            "(can|could|do|are) (peers|the peers|other peers|other nodes|others|a peer|other "
            "people|servers) (able to |)(see|read|know|learn|look at|guess|infer|recover) "
            "(my|what i|our) ({text}|write|type|ask|conversation)",
            "is (my|the) (chat|conversation|prompt|data|text) (private|secret|confidential|"
            "safe|hidden)( from peers| from others|)",
            "(who|which peers) can (read|see) (my|what i) (chat|prompt|text|write|messages)",
            "how private (is|are) (gptnode|it|my chats|my messages|this)",
            "what (can|do) (peers|the peers|other nodes) (see|learn|find out)( about me| of my "
            "chat|)",
            "(should|can|must) i trust (the|my|other) peers",
            "may i (type|enter|send) (secrets|passwords|private things|personal data)",
            "what about privacy",
            "do activations (leak|reveal|give away) (my |)(text|anything|prompt)",
            "is it safe to chat over (strangers|foreign peers|unknown "
            "peers|other people's machines)",
        ),
    ),
    Topic(
        "allow_list",
        "A node talks only to the peers and clients in its BlocksMap; everybody else is refused "
        "by default.",
        nouns=(
            "the allow-list",
            "the allow list",
            "default deny",
            "access control",
            "the allowlist",
            "the whitelist",
        ),
        actions=(
            "keep (strangers|others|unknown nodes|intruders) (out|away)",
            "(restrict|control|limit) (access|who connects|who may connect)",
        ),
        questions=(
            "(could|can|may) (some|a|an) (stranger|outsider|unknown machine|unknown node|intruder|hacker) (connect|get in|use my blocks|log in|enter|reach my node)",
            "who gets (in|refused|rejected|turned away)",
            "is my node (protected|safe) from (strangers|outsiders)",
            "who (may|can|is allowed to) (connect|use my node|talk to my node|connect to my "
            "node|use my machine)",
            "can (anybody|anyone|strangers|everybody|everyone) "
            "(connect|use my node|join|connect to my (node|server))",
            "(does|will) (my|a) node (accept|let in|answer|talk to) (strangers|anybody|unknown "
            "peers|everyone)",
            "is my (node|server) open to (everyone|the world|anybody|the internet)",
            "how (is|are) (access|strangers) (controlled|kept out|refused)",
        ),
    ),
    Topic(
        "clients",
        "List the peer id of a client under clients in the map: it may then use the blocks "
        "without serving any.",
        nouns=(
            "clients in the map",
            "the clients list",
            "a client",
            "the clients field",
            "clients",
            "the clients section",
        ),
        actions=(
            "(allow|permit|let|authorise|authorize) (a|another|my friend's|some) (client|friend|"
            "user|person)( to use (the swarm|my blocks|the blocks)|)",
            "give (a friend|somebody|someone|a user) access( to (the swarm|my blocks)|)",
            "{add} a (client|user)( to the map|)",
            "let (somebody|a friend|someone) (use|chat over) the swarm",
        ),
        questions=(
            "how (can|do|could) i let (a|my) (friend|colleague|user|brother) (use|chat over|access) (the|my) (swarm|blocks)( without serving|)",
            "(use|chat over) the swarm without (serving|hosting|running|offering) (blocks|anything)",
            "can (somebody|a node|a friend) use the swarm without (serving|running blocks)",
            "how does a (client|user) get access",
        ),
    ),
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
            "(why|what for) (are|do nodes compare|does gptnode compare|compare) (model |the |)fingerprints( compared|)",
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
            "(which|what) (dtype|precision|type) (do|must|can|should) (weights|my weights|the tensors|tensors) (have|be|use)",
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
            "(does|must|will|has) (each|every|one|a single) (node|peer|machine|server) (have to |to |)(load|read|hold|store) (the entire|the whole|the complete|all of the) model",
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
            "how much (ram|memory) (must|should|will|would) (a|one|my|every|each) (node|machine|server|computer|peer) (have|need|want|take|use)",
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
            "(can|could|will|does) (my|a|the) (graphics card|gpu|nvidia card) (be used|help|do the work|compute the blocks)",
            "do i need a (gpu|graphics card)",
            "does it (work|run) (without a gpu|on a cpu|on a gpu)",
            "is a (gpu|graphics card) (needed|necessary|required|used)",
            "(can|does) gptnode (use|support) (a gpu|cuda|gpus|my graphics card)",
        ),
    ),
    Topic(
        "heartbeat",
        "A heartbeat is a small message that a peer sends while it works, so that the other side "
        "knows it is alive.",
        nouns=("a heartbeat", "heartbeats", "the heartbeat", "a ping", "a keepalive"),
        questions=(
            "why do (peers|nodes|servers) send (heartbeats|pings|heartbeat messages|small messages)",
            "what are heartbeats( good|used|) for",
            "who sends heartbeats",
            "how (does|do) (a node|gptnode|it|nodes) (know|notice|detect|tell|see|find out) "
            "(that|if|whether) (a|another) peer (is alive|is still there|is dead|lives|died)",
            "how is a dead peer (noticed|detected|found)",
        ),
    ),
    Topic(
        "lan_internet",
        "Peers can be on one network or anywhere on the internet, as long as the TCP port of "
        "each server can be reached.",
        actions=(
            "use gptnode (over the internet|between two houses|across cities|in my lan|over wifi)",
            "{connect} machines in different (places|networks|cities)".replace(
                "{connect}", "(connect|join|link)"
            ),
            "(open|forward) a port( in my router| in the firewall|)",
            "get through (a|my) (firewall|router|nat)",
        ),
        questions=(
            "(must|should|do|need) (all |the |my |)(nodes|machines|peers|computers) (to |)(be in|share|sit in|live in) (one|the same|a common) (network|lan|building|wifi)",
            "(can|may) (one|a) (node|peer|machine) be (at|in) (home|another city|another network|the office)",
            "does (it|gptnode) work (over|across|on) (the internet|wifi|a lan|my home network)",
            "must (the |all |)(peers|machines|nodes) be (in|on) (one|the same) (network|room|"
            "lan|house)",
            "can (peers|machines|nodes) be (far away|in different places|"
            "anywhere|in other countries)",
            "(does|do) i need (a public address|an open port|port forwarding)",
            "i am behind a (router|nat|firewall)",
        ),
    ),
    Topic(
        "license",
        "gptnode is free software under the MIT license: use it, change it and share it.",
        nouns=("the license", "the licence of gptnode", "the license of gptnode"),
        questions=(
            "under (which|what) license (may i use it|is it released|is it distributed|does it come|do you ship it)",
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
    Topic(
        "ring",
        "In a ring route each peer sends its output straight to the next one and the last "
        "answers you, which saves half of the way.",
        nouns=("a ring route", "the ring", "ring routing", "a ring", "star and ring"),
        questions=(
            "what (is|are) (good|better|the advantage|the benefit|nice) (about|of|with|in) (a |)ring( route| routes| routing|)",
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
            "from what (can|could|will) (a|the|my) (cache|session|chat|state) be (rebuilt|restored|recovered|made again)",
            "how (can|do) (you|i|nodes) (rebuild|restore|recover) (a|the|lost|my) (cache|caches|chat|state)",
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
