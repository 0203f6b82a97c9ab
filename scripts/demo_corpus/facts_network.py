"""The network: addresses, trust and privacy."""

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
            "(how|from what) is (a|the) (multiaddr|multiaddress|address of a peer) "
            "(built|made|composed|written|structured)( up|)",
            "what (does|is|do) (the |)(/ip4|/tcp|ip4|tcp)( and /tcp|)( part|) (in an "
            "address|mean|in a multiaddr)( mean|)",
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
            "(over|through|with) (which|what) (protocol|network|channel) do (the |)(nodes|peers) "
            "(talk|speak|communicate|exchange data)",
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
            "(are|is) (messages|packets|all data|everything|the stream) encrypted( on the way| "
            "between nodes| on the wire|)",
            "(are|is) (my|the) (connections|messages|link) (secured|encrypted|protected) "
            "(against|from) (listeners|eavesdroppers)",
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
            "(can|could|may) (anyone|the owner of a peer|an operator|a machine's owner|a stranger "
            "who runs blocks|they) (read|see|watch|spy on) (my|the|our) "
            "(messages|text|chat|words|input)",
            "(do|can) (the|those) (people|machines|servers) (that|who) run (my|the) blocks "
            "(see|know|learn) what i (type|write|say)",
            "how (secret|confidential|anonymous) (is|are) (my|our) "
            "(chat|chats|conversation|messages)",
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
            "(could|can|may) (some|a|an) (stranger|outsider|unknown machine|unknown "
            "node|intruder|hacker) (connect|get in|use my blocks|log in|enter|reach my node)",
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
            "how (can|do|could) i let (a|my) (friend|colleague|user|brother) (use|chat "
            "over|access) (the|my) (swarm|blocks)( without serving|)",
            "(use|chat over) the swarm without (serving|hosting|running|offering) "
            "(blocks|anything)",
            "can (somebody|a node|a friend) use the swarm without (serving|running blocks)",
            "how does a (client|user) get access",
        ),
    ),
    Topic(
        "heartbeat",
        "A heartbeat is a small message that a peer sends while it works, so that the other side "
        "knows it is alive.",
        nouns=("a heartbeat", "heartbeats", "the heartbeat", "a ping", "a keepalive"),
        questions=(
            "why do (peers|nodes|servers) send (heartbeats|pings|heartbeat messages|small "
            "messages)",
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
            "(must|should|do|need) (all |the |my |)(nodes|machines|peers|computers) (to |)(be "
            "in|share|sit in|live in) (one|the same|a common) (network|lan|building|wifi)",
            "(can|may) (one|a) (node|peer|machine) be (at|in) (home|another city|another "
            "network|the office)",
            "does (it|gptnode) work (over|across|on) (the internet|wifi|a lan|my home network)",
            "must (the |all |)(peers|machines|nodes) be (in|on) (one|the same) (network|room|"
            "lan|house)",
            "can (peers|machines|nodes) be (far away|in different places|"
            "anywhere|in other countries)",
            "(does|do) i need (a public address|an open port|port forwarding)",
            "i am behind a (router|nat|firewall)",
        ),
    ),
)
