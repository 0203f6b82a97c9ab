"""The text that the bundled demo model learns from: dialogues that this package writes.

`facts_*.py` hold what gptnode is and does, one answer a topic; `small_talk.py`, `stories.py` and
`skills.py` hold the rest; `dialogues.py` mixes them into conversations; `heldout.json` is the
list of questions that no conversation may contain. Everything is drawn from a seeded generator,
so the same seed gives the same text.
"""
