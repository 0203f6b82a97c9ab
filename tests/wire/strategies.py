"""Hypothesis strategies for every message, shared by the tests of wire and net."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from gptnode.span import Span
from gptnode.wire.checks import MAX_INTEGER, MAX_TOKENS
from gptnode.wire.draw import MAX_GUESS
from gptnode.wire.messages import (
    ACTIVATIONS,
    MODEL_DTYPES,
    Arrived,
    Close,
    Closed,
    Draw,
    ErrorCode,
    Failure,
    Fed,
    Feed,
    Forward,
    Forwarding,
    Open,
    Opened,
    Ping,
    Pong,
    Relay,
    Relayed,
    Step,
    Stepped,
    Stranded,
    Trace,
    Truncate,
    Truncated,
    WireTensor,
)
from gptnode.wire.tensor import ITEMSIZE_BYTES, tensor_bytes

names = st.text(
    st.characters(codec="utf-8").filter(lambda char: char.isprintable()), min_size=1, max_size=40
)
dtypes = st.sampled_from(sorted(ITEMSIZE_BYTES))
model_dtypes = st.sampled_from(sorted(MODEL_DTYPES))
tokens = st.integers(0, MAX_TOKENS)
some_tokens = st.integers(1, MAX_TOKENS)
integers = st.integers(0, MAX_INTEGER)
seconds = st.floats(0, 1e9)
spans = st.tuples(st.integers(0, 500), st.integers(1, 500)).map(
    lambda pair: Span(pair[0], pair[0] + pair[1])
)


@st.composite
def tensors(draw: st.DrawFn) -> WireTensor:
    dtype = draw(dtypes)
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    size_bytes = tensor_bytes(dtype, shape)
    return WireTensor(dtype, shape, draw(st.binary(min_size=size_bytes, max_size=size_bytes)))


@st.composite
def id_lists(draw: st.DrawFn) -> WireTensor:
    ids = draw(st.lists(st.integers(-(2**31), MAX_TOKENS), min_size=1, max_size=40))
    return WireTensor("i32", (len(ids),), struct.pack(f"<{len(ids)}i", *ids))


draws = st.builds(
    Draw,
    temperature=st.floats(0, allow_infinity=False, allow_nan=False),
    top_k=tokens,
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0, exclude_min=True, allow_infinity=False, allow_nan=False),
    seed=integers,
    drawn=tokens,
    guess=st.lists(tokens, max_size=MAX_GUESS).map(tuple),
    seen=st.none() | id_lists(),
)
perhaps_draws = st.none() | draws
flags = st.booleans()
feed_keys = st.just("") | names
opens = st.builds(
    Open, names, names, spans, some_tokens, model_dtypes, feed_keys, flags, flags
) | st.builds(
    Open,
    names,
    names,
    spans,
    some_tokens,
    st.sampled_from(["bf16", "int8", "int4"]),
    feed_keys,
    flags,
    flags,
    st.sampled_from(ACTIVATIONS),
)
openeds = st.builds(Opened, names, spans, integers, some_tokens, some_tokens)
steps = st.builds(Step, tokens, tensors(), perhaps_draws)
steppeds = st.builds(Stepped, tokens, spans, names, integers, tensors(), seconds, seconds)
failures = st.builds(Failure, st.sampled_from(ErrorCode), st.text(max_size=400), seconds)

tickets = st.integers(1, MAX_INTEGER)
trails = st.lists(st.builds(Trace, spans, integers, seconds, seconds), max_size=3).map(tuple)

client_messages = st.one_of(
    opens,
    steps,
    st.builds(Truncate, tokens),
    st.builds(Forward, tickets, names, names),
    st.builds(Feed, names),
    st.builds(Relay, tickets, tokens, tensors(), trails, perhaps_draws),
    st.builds(Ping, integers),
    st.just(Close()),
    failures,
)
server_messages = st.one_of(
    openeds,
    steppeds,
    st.builds(Truncated, tokens),
    st.builds(Forwarding, st.text(max_size=400)),
    st.builds(Fed, some_tokens),
    st.builds(Relayed, some_tokens),
    st.builds(Arrived, tickets, tokens, tensors(), trails),
    st.builds(Stranded, tickets, st.text(max_size=400)),
    st.builds(Pong, integers),
    st.just(Closed()),
    failures,
)
messages = st.one_of(client_messages, server_messages)
