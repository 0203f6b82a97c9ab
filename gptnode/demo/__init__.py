"""The bundled model, and a swarm of real servers on this machine that serves it."""
