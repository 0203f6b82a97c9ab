"""Paraphrases from patterns: `(a|b)` is a choice, `(a|)` is optional, `{name}` is a macro."""

import random
import re
from dataclasses import dataclass

MACROS = {
    "show": "(show|display|list|print|see|view|look at|get|find out|check)",
    "start": "(start|run|launch|begin|open|fire up|bring up|boot)",
    "stop": "(stop|end|halt|cancel|abort|interrupt|break off|cut off)",
    "make": "(make|create|generate|produce|get|set up)",
    "add": "(add|include|insert|put|register|enter|bring in)",
    "remove": "(remove|delete|drop|erase|take out|throw away|get rid of)",
    "change": "(change|set|adjust|modify|alter|configure|tweak|pick|choose)",
    "save": "(save|store|write|keep|export|dump|back up)",
    "load": "(load|open|restore|read|import|bring back|reopen|get back)",
    "machine": "(machine|computer|server|box|laptop|host)",
    "machines": "(machines|computers|servers|boxes|hosts|laptops)",
    "peer": "(peer|node|server|machine)",
    "chat": "(chat|conversation|dialogue|session|talk)",
    "answer": "(answer|reply|response|output|generation)",
    "text": "(text|words|prompt|messages|chat|input|questions)",
    "dies": "(dies|crashes|fails|goes down|goes offline|disappears|breaks|stops working|is gone"
    "|shuts down|vanishes|drops out|is lost)",
    "file": "(file|json file|json|)",
    "map": "(map|BlocksMap|BlocksMap|blocksmap|blocks map|map file)",
    "terminal": "(terminal|command line|shell|console)",
    "my": "(my|the|a|this)",
}

LOOSE_QUESTIONS = 0.3  # how many questions are a core among any words
_CHOICE = re.compile(r"\(([^()]*)\)")
_MACRO = re.compile(r"\{(\w+)\}")


def expand(pattern: str, rng: random.Random) -> str:
    """Return one text that `pattern` describes, choices drawn from `rng`."""
    while "{" in pattern:
        pattern = _MACRO.sub(lambda match: MACROS[match[1]], pattern)
    while "(" in pattern:
        pattern = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), pattern)
    return re.sub(r"\s+([,.?!])", r"\1", " ".join(pattern.split()))


@dataclass(frozen=True)
class Topic:
    """One thing to know: its only answer, and the ways to ask for it.

    `nouns` complete "what is ...", `actions` complete "how do I ...", `problems` are clauses
    that complete "what do I do when ...", `questions` are whole questions.
    """

    name: str
    answer: str
    nouns: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()


ABOUT_NOUN = (
    "(what is|what's|what exactly is|whats|what is meant by|what do you mean by) @( exactly|)?",
    "(what is|what's) @?",
    "(what is|what's) @ (in gptnode|here|in this program|in this project)?",
    "what does @ mean?",
    "what does @ do?",
    "(so |and |)(what|what on earth|what in the world) (is|would be|might be) @?",
    "(say|tell me|put) in your own words what @ is.",
    "@ (is|would be) what( exactly|)?",
    "(what|whom) do you call @?",
    "what (is|'s) @ supposed to be?",
    "(explain|describe|define) @( to me| for me| briefly| in simple words|).",
    "(can|could|would) you (please |)(explain|describe|define) @?",
    "(can|could) you tell me (what @ is|about @)?",
    "tell me (something |more |a bit |)about @.",
    "(please |)tell me what @ is.",
    "(explain|show me|say|clarify) what @ is.",
    "i (don't|do not) (understand|get|know) (what @ is|@).",
    "(i'd like|i want|i would like) to (know|understand|learn) what @ is.",
    "(give me|i need) (a|the) (definition|description|explanation|meaning) of @.",
    "(meaning|definition|purpose) of @?",
    "(what is|what's) (the (meaning|purpose|point|role|idea|use|definition) of) @?",
    "what (is|'s) @ (for|good for|used for|about)?",
    "what (should|must|do) i (know|need to know) about @?",
    "(why is there|why do we have|why do i need) @?",
    "(remind me|do you know|any idea|can you say) what @ is?",
    "help me (understand|with) @.",
    "(never heard of|i have not heard of|i'm confused about|i am new to) @.",
    "how (would you|do you) (define|describe|explain) @?",
    "in (simple words|short|one sentence|a few words|plain english), what is @?",
    "@?",
    "@, (what is it|what is that|please explain|what does it do|what is this)?",
    "(what|which) (kind|sort|type) of thing is @?",
    "(could|can) you (clarify|clear up|shed light on|say something about) @?",
    "(what can i do with|what would i use|when do i need|how do you use|how do i use) @?",
    "(what is|what's) (so special about|the story with|the matter with|the deal with) @?",
    "(i read about|i saw|i came across|i heard of|i wonder about|i am curious about) @.",
    "(when you say|if i read|by) @, what (do you mean|is it|is meant)?",
    "(is|was) @ (important|necessary|needed), and what is it?",
    "(let's|let us) talk about @.",
    "how (should|must|can|do) i (picture|think of|understand) @?",
    "(what|which) (task|role|job|function) (has|does) @( have| do|)?",
    "(give me|i want) (details|information|some facts|a hint) (about|on) @.",
    "and (what is|what's) @?",
    "(somebody|the docs|the manual|you) (mentioned|talked about|talk about|mention) @, "
    "(what is that|what does that mean)?",
)
ABOUT_ACTION = (
    "(how do i|how can i|how do you|how would i|how should i|how does one|how could i) @?",
    "how do i @?",
    "how can i @?",
    "how to @?",
    "(i want|i'd like|i need|i would like|i am trying|i'm trying|i wish) to @.",
    "(what is|what's) the (way|command|best way|easiest way|right way|trick|procedure) to @?",
    "(which|what) (command|option|flag|key|setting) (lets me|do i use to|will|is there to"
    "|do i need to|can i use to) @?",
    "what (do|should|must|can) i (type|do|use|write|press|run|enter) to @?",
    "(help me|can you help me|please help me) (to |)@.",
    "(show me|tell me|teach me|explain|describe|explain to me) how (to|i can|i could) @.",
    "(is it possible|is there a way|is there any way|is there a command|is there an option) to @?",
    "(can|could|may) i @?",
    "what (do|must) i have to do (in order |)to @?",
    "(steps|instructions|a recipe|the command) to @?",
    "@",
    "how am i (supposed|meant) to @?",
    "i (don't|do not) know how to @.",
    "i have no idea how to @.",
    "let me @.",
    "what if i want to @?",
    "where do i @?",
    "(i have|i've got|i plan|i decided|it is time|my goal is) to @.",
    "(what|which) (is|would be) (a|the) (good|proper|simple|quick|usual) way to @?",
    "(do you know|can you say|could you explain|would you tell me) how to @?",
    "(what|which command|how much) does it take to @?",
    "(how|in what way) (is it possible|does it work) to @?",
    "what would (i|you) (type|do|run|use) to @?",
    "@, how (does that work|do i do that|is that done)?",
    "(how|what) about this: i want to @.",
    "(should|must|will) i (type|run|do) something (special |)to @?",
    "how will i be able to @?",
    "i would love to @, how?",
)
ABOUT_PROBLEM = (
    "@.",
    "@, (what now|what should i do|what can i do|why|any idea|what does that mean|how do i fix it"
    "|how to fix that|please help|what is wrong|what is the reason|what did i do wrong)?",
    "(what|what should i do|what can i do|what do i do|what to do|what now) (if|when) @?",
    "what (happens|will happen|would happen) (if|when) @?",
    "what does it mean (if|when|that) @?",
    "(help|help me|problem|oh no|hmm|sorry), @.",
    "(why is it that|how come|why does it happen that) @?",
    "(i have a problem|my problem is this|the problem|there is a problem): @.",
    "(how do i fix it|what is wrong|what is the cause|what is the reason) (if|when) @?",
    "(suppose|imagine|assume|say) @. (what then|what happens|what do i do)?",
    "it seems that @.",
    "(suddenly|unfortunately|for some reason|since today|again|strange|look), @.",
    "@ (and i do not know why|all the time|again|now|since yesterday).",
    "(how should i react|what is the remedy|what is best|what helps|what is to be done) (if|when) "
    "@?",
    "(can|could) you help( me|)? @.",
    "(i see|i notice|i found|i think|i read) that @.",
    "(and|but) (if|when) @?",
    "(is it bad|is that normal|do i have to worry) (if|when|that) @?",
    "(tell me|explain) (what to do|why|what it means) (if|when) @.",
    "what is gptnode doing (if|when) @?",
)
_SHAPES = (ABOUT_NOUN, ABOUT_ACTION, ABOUT_PROBLEM, ("@",))
# Words around the core of a question that don't tell which topic it is about.
_FILLERS_BEFORE = (
    "what", "what is", "what's", "how", "how does", "how is", "why", "when", "where", "which",
    "who", "is", "are", "can", "can i", "could", "would", "will", "do", "does", "do you", "i",
    "we", "my friend", "a user", "somebody", "they", "you", "the docs", "the readme", "please",
    "just", "really", "quickly", "tell", "tell me", "explain", "describe", "show", "about",
    "with", "for", "of", "on", "the word", "the notion of", "the concept of", "the expression",
    "this", "that", "it", "mentioned", "said", "wants", "asked about", "needs", "should", "must",
    "to", "there", "in short", "today", "actually", "then", "teach me", "give me", "some words",
    "information", "help", "the purpose of", "the point of", "the use of", "role", "sort of",
    "kind of", "want to", "need to", "like to", "try to", "the way to", "possible to", "now",
    "if", "because", "and", "so", "but", "hello", "question", "not sure", "learn", "know",
)  # fmt: skip
_FILLERS_AFTER = (
    "what", "how", "why", "is it", "what is it", "what is that", "please", "today", "again",
    "here", "there", "now", "then", "for me", "to me", "in short", "in general", "at all",
    "mean", "do", "work", "about", "good for", "help", "exactly", "really", "and why", "and how",
    "or not", "if possible", "anyway", "with it", "in this case", "on my side", "you know",
    "right", "one day", "for us", "like this", "or what", "in detail", "quickly", "somehow",
)  # fmt: skip
_OPENINGS = (
    "please ", "hi, ", "hey, ", "hello, ", "ok, ", "okay, ", "so ", "well, ", "now ", "and ",
    "one question: ", "quick question: ", "another question: ", "sorry, ", "excuse me, ",
    "alright, ", "just wondering, ", "tell me, ", "next: ", "i wonder, ",
)  # fmt: skip
_SENTENCES_BEFORE = (
    "i am new here. ", "i have a question. ", "one more thing. ", "let me ask something. ",
    "sorry for asking. ", "i read the docs. ", "i have two machines. ", "i am a beginner. ",
    "my friend asked me this. ", "i am trying gptnode. ", "i just started. ", "good. ",
    "oh! ", "i wonder. ", "hmm. ", "that is clear. ",
)  # fmt: skip
_SENTENCES_AFTER = (
    ". can you help?", ". please explain.", ". i am curious.", ". any idea?", ". tell me.",
    ". i forgot.", ". do you know?", ". thanks!", ". please tell me.", ". i need to know.",
    ", do you know?", ", can you tell me?", ", or how?", ", right?",
)  # fmt: skip
_CLOSINGS = (
    " please", " thanks", " with gptnode", " in gptnode", " here", " exactly", " again",
    ", please", ", thank you", " for me", " then", " now",
)  # fmt: skip


def ask(topic: Topic, rng: random.Random) -> str:
    """Write one of the many questions that `topic` answers."""
    kinds = (topic.nouns, topic.actions, topic.problems, topic.questions)
    weights = [len(patterns) * (2 if shapes[0] == "@" else 3)
               for patterns, shapes in zip(kinds, _SHAPES, strict=True)]  # fmt: skip
    (kind,) = rng.choices(range(len(kinds)), weights)
    core = expand(rng.choice(kinds[kind]), rng)
    if rng.random() < LOOSE_QUESTIONS:
        question = _loosely(core, rng, is_whole=kind == len(kinds) - 1)
    else:
        question = expand(rng.choice(_SHAPES[kind]), rng).replace("@", core)
    if rng.random() < 0.12:
        question = _drop_a_word(question, rng)
    if rng.random() < 0.06:
        question = _misspell(question, rng)
    return roughen(question, rng)


def _loosely(core: str, rng: random.Random, is_whole: bool) -> str:
    """Put words around `core` without regard to grammar, so that it alone tells the topic."""
    if rng.random() < 0.5:
        core = re.sub(r"^(a|an|the|my) ", "", core)
    n_before = rng.choice((0, 0, 1) if is_whole else (0, 1, 2, 2, 3, 4))
    before = rng.choices(_FILLERS_BEFORE, k=n_before)
    after = rng.choices(_FILLERS_AFTER, k=rng.choice((0, 0, 1, 1, 2)))
    return " ".join((*before, core, *after)) + rng.choice("?.")


def roughen(question: str, rng: random.Random) -> str:
    """Write `question` as people type: politely, in lower case, without marks."""
    ending = question[-1] if question[-1] in ".?!" else ""
    body = question.removesuffix(ending)
    if rng.random() < 0.15:
        body = rng.choice(_OPENINGS) + body
    elif rng.random() < 0.08:
        body = rng.choice(_SENTENCES_BEFORE) + body
    if rng.random() < 0.12:
        body += rng.choice(_CLOSINGS)
    elif rng.random() < 0.05:
        body += rng.choice(_SENTENCES_AFTER)
        body, ending = body[:-1], body[-1]
    if rng.random() < 0.55:
        body = re.sub(r"\bi\b", "I", body[0].upper() + body[1:])
    return body + (ending if rng.random() < 0.65 else "")


def _drop_a_word(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    if len(words) > 4:
        del words[rng.randrange(len(words))]
    return " ".join(words)


def _misspell(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    long = [index for index, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    if not long:
        return text
    index = rng.choice(long)
    word = words[index]
    at = rng.randrange(1, len(word) - 1)
    words[index] = rng.choice((
        word[:at] + word[at + 1 :],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at] + word[at:],
    ))  # fmt: skip
    return " ".join(words)
