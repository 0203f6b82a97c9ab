"""The protocol between nodes, sans-io: bytes become messages here and nowhere else.

messages.py says what there is to say, codec.py how it is written (msgpack), with encoding.py and
decoding.py for the fields of each message, frames.py where one message ends, limits.py how much is
let in, connection.py which message may follow which. Knows no socket, no libp2p, no torch.
Specification: docs/reference/wire-protocol.md.
"""
