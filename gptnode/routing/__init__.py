"""Which peer runs which blocks: the BlocksMap file, and the route of a prompt through it.

Pure functions and frozen data over the standard library. Nothing here opens a connection, loads a
model or knows whether a peer is alive: callers say which peers are down.

- `blocks_map`: the file as a frozen `BlocksMap`; errors name the JSON path
- `route`: from a map to the hops of one prompt
- `entries`: what a map consists of
- `own_form`, `other_form`: the two ways to write it in JSON; `both_forms`: what is alike in them
- `map_checks`: blocks and ends that nobody serves
- `json_reader`, `multiaddr`, `peer_id`: JSON values with their paths, and two kinds of text
"""
