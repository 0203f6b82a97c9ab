"""A node: blocks, peers and text put together into a client and a block server."""
