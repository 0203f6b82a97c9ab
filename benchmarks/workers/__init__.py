"""Scripts that run as processes of their own and print one line of JSON.

Those for the rivals run in the rivals' environment, where neither gptnode nor this package is
installed: they import nothing of either.
"""
