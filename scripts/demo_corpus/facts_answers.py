"""Keys and options that shape an answer."""

from demo_corpus.grammar import Topic

TOPICS = (
    Topic(
        "stop_answer",
        "Press Space or Ctrl-C: the answer stops at once, and what was printed stays in the "
        "context.",
        nouns=("the space key", "the space bar"),
        actions=(
            "{stop} (the|an|a running|a long|your|this) {answer}",
            "{stop} (the model|you) (while it writes|from writing|in the middle|mid sentence|"
            "while it is talking|)",
            "{stop} (generating|writing|streaming|the stream)",
            "(make|let) (you|the model|it) (stop|be quiet|shut up|stop talking)",
            "cut an answer short",
        ),
        questions=(
            "(interrupt|stop|cancel|end|break) (the|an|your) (stream|streaming|streamed "
            "answer|answer that streams)",
            "how (can|do) i (interrupt|stop|cancel) (you|it|the stream|an answer) "
            "(while|during|when) (it is |you are |)(streaming|writing|talking|it runs)",
            "which key (stops|ends|interrupts) (an|the) answer",
            "stop",
            "(the|your) answer is (too long|endless|getting long)",
            "what does (space|ctrl-c|the space key|control c) do",
            "(it|the model) (does not stop|won't stop|keeps) (writing|talking)",
            "the model talks too much",
        ),
    ),
    Topic(
        "multi_line",
        "Press Alt-Enter for a new line in your message, and Enter to send it.",
        nouns=("multi-line input", "alt-enter"),
        actions=(
            "(write|type|enter|send) (a message|messages|text|a prompt) (with|of|over) (several|"
            "more than one|many|two|multiple) lines",
            "(insert|type|make|add|enter) a (new line|newline|line break)",
            "(write|paste) a (long|multi-line|multiline) (message|text|prompt)",
            "start a new line without sending",
        ),
        questions=(
            "(how|where) (do|can) i (put|get|make|place) (a|in a) (line break|newline|new "
            "line|second line)( in| into|)( my| a|)( message| prompt|)",
            "enter sends (my|the) message too early",
            "can a message have (several|two|many) lines",
            "how do i send (my|a) message",
        ),
    ),
    Topic(
        "sampling",
        "The sampling options are temperature, top-k, top-p, min-p, repetition penalty and seed; "
        "they decide how the next token is picked.",
        nouns=(
            "sampling",
            "the sampling options",
            "a sampling option",
            "the sampling parameters",
            "the sampler",
        ),
        questions=(
            "(what|which) (options|settings|choices|parameters) (exist|are there|do i have|are "
            "offered) (for|in|with) sampling",
            "(which|what) (sampling |generation |)(options|parameters|settings|knobs) (are "
            "there|exist|can i set|does sampling have)( for sampling| for answers|)",
            "how is (the next|a|each|a new) token (picked|chosen|selected|sampled)",
            "what (decides|determines|influences) (which|the next) token( comes next|)",
            "(list|name) the sampling (options|parameters)",
            "what can i tune (in the answers|for generation)",
        ),
    ),
    Topic(
        "temperature",
        "The temperature sets how bold the sampling is: 0 always takes the most likely token, "
        "higher values vary more.",
        nouns=(
            "the temperature",
            "temperature",
            "--temperature",
            "the temperature option",
            "a high temperature",
            "a low temperature",
        ),
        actions=(
            "(get|make) (more |less |)(creative|varied|bold|random|surprising|wild) answers",
            "make (you|the model|answers) (more |less |)(creative|random|bold|varied|boring)",
        ),
        questions=(
            "(what|which) (effect|influence|impact) (has|does|have) (a |the |)(high |low "
            "|)temperature( have| on answers|)",
            "(which|what) temperature (should i use|is good|is best)",
            "what does a (high|higher|low|lower) temperature (do|mean)",
            "(answers|the answers) are too (random|wild|boring|strange|dull)",
            "how random are (the |)answers",
        ),
    ),
    Topic(
        "greedy",
        "Use --temperature 0: decoding is then greedy, and the same prompt always gives the same "
        "answer.",
        nouns=(
            "greedy decoding",
            "--temperature 0",
            "greedy sampling",
            "temperature 0",
            "temperature zero",
            "a deterministic answer",
        ),
        actions=(
            "(get|have|make) (the same answer (each time|every time|always|twice)|"
            "deterministic answers|repeatable answers|reproducible (answers|output))",
            "(turn off|switch off|avoid|disable) (randomness|sampling|chance)",
            "make (answers|the output|it) (deterministic|repeatable|reproducible)",
        ),
        questions=(
            "i (want|need|expect) (always |exactly |)the (same|identical) "
            "(answer|output|text|result) (always|each time|whenever i ask|on every run)",
            "no randomness please",
            "why (is|does) (the|each) answer (different|change)( each time| every time|)",
            "how do i always get the same (answer|output|reply)",
        ),
    ),
    Topic(
        "top_k_top_p",
        "Top-k keeps only the k most likely tokens, top-p the smallest set whose probabilities "
        "reach p, min-p those near the best.",
        nouns=(
            "top-k",
            "top-p",
            "min-p",
            "top k",
            "top p",
            "nucleus sampling",
            "min p",
            "--top-k",
            "--top-p",
            "--min-p",
        ),
        actions=(
            "(cut|leave|rule) (off|out) unlikely tokens",
            "(exclude|forbid|drop) (rare|unlikely|improbable) tokens",
        ),
        questions=(
            "(how does|what is) (top-p|top-k|min-p) (compare|compared|differ|different) "
            "(to|with|from) (top-k|top-p|min-p)",
            "(what is|what's) the difference (between|of) top-k and top-p",
        ),
    ),
    Topic(
        "seed",
        "Pass --seed S: with the same seed, prompt and options, sampling draws the same tokens "
        "again.",
        nouns=("a seed", "the seed", "--seed", "the seed option", "a random seed"),
        actions=(
            "(repeat|reproduce|replay) a (random|sampled) (answer|run)",
            "(fix|set) the (seed|random numbers|random generator)",
        ),
        questions=(
            "(what|why|when) (is|would i use|do i need|use) (a|the) seed( for| option|)( good "
            "for|)",
            "which seed (is used|should i use)",
            "how do i repeat a sampled answer",
        ),
    ),
    Topic(
        "repetition",
        "Set a repetition penalty above 1, for example /set repetition_penalty 1.1, so that "
        "words used before get less likely.",
        nouns=("the repetition penalty", "a repetition penalty", "repetition penalty"),
        actions=(
            "(avoid|prevent|reduce|stop) (repetition|repetitions|repeated words|loops)",
            "(keep|stop) (you|the model) from repeating (itself|yourself|words)",
        ),
        problems=(
            "(the model|it|the answer) (repeats itself|says the same (words|thing) (again and "
            "again|over and over)|is stuck in a loop|loops|keeps repeating)",
        ),
        questions=(
            "(stop|keep|prevent|hinder) (the model|you|it) (from "
            "|)(saying|repeating|writing|using) the same (words|thing|sentence)( again| twice| "
            "all the time|)",
        ),
    ),
    Topic(
        "stop_sequence",
        "A stop sequence is a text that ends the answer when the model writes it; pass it with "
        "--stop TEXT.",
        nouns=(
            "a stop sequence",
            "stop sequences",
            "--stop",
            "the --stop option",
            "a stop word",
            "a stop string",
        ),
        actions=(
            "(stop|end) (an answer|the answer|generation) at a (word|text|certain word|phrase|"
            "string)",
            "{add} a stop (sequence|word|string)",
        ),
        questions=(
            "(for what|why|when) (do|would|should) i (use|need|want|set) (a |)stop "
            "(sequence|sequences|word|string)",
            "which text ends an answer",
            "how does the model know (when|where) to stop",
        ),
    ),
    Topic(
        "max_tokens",
        "Pass --max-tokens N: the answer ends after N tokens at the latest.",
        nouns=("--max-tokens", "the --max-tokens option", "max tokens", "the max-tokens option"),
        actions=(
            "(limit|set|restrict|cap|bound) (the |)(length|size|number of tokens)( of (an|the) "
            "answer| of answers|)",
            "get (shorter|short|longer|brief) (answers|replies)",
            "make (the |)(answers|replies) (shorter|longer|brief)",
        ),
        questions=(
            "(can|how can|how do) i (limit|restrict|bound|cap|shorten) (how long|the length "
            "of|the size of) (an answer|the answer|answers|replies)( gets| is| are|)",
            "how long (can|may|will) an answer (be|get)",
            "(answers|the answers|your answers) are too (long|short)",
            "why (is|was) (the|my|an) answer cut off",
        ),
    ),
    Topic(
        "json_output",
        "Pass --json: the command prints one JSON object with the text, the token ids, counts "
        "and speed.",
        nouns=("--json", "the --json option", "json output", "the json option"),
        actions=(
            "(get|have|print|read) (the |)(output|answer|result|answers) (as|in) json",
            "(parse|process) the (answer|output) (in|with|by) (a|another) (program|script)",
            "get machine readable output",
        ),
        questions=(
            "(print|show|give|write|return) (the|an|my|every) (answer|answers|output|result) "
            "(as|in) json( format|)",
            "(which|what) option (prints|gives|makes|turns on) json",
            "is there (a |)json( output|)",
            "can gptnode (print|write|output) json",
        ),
    ),
)
