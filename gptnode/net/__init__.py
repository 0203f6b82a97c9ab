"""Trio and bytes: identities, the libp2p host, and channels that drive the protocol over a stream.

Knows no models: what a session computes is the business of gptnode.node. libp2p is imported here
alone, in host.py and identity.py; channel.py and pump.py work over any trio stream.
"""
