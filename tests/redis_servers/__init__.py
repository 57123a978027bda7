"""Real servers for the tests of what speaks to Redis: alone, with TLS, under Sentinel, as a
Cluster, each of Redis and of Valkey, and a proxy that mangles what passes between them and a
client (proxy.py, behaviours.py).

Every server is a process of the test run's own on 127.0.0.1 and on a Unix socket, in a directory
of its own, and is ended by its process id with the block that started it. fixtures.py has those
that many tests share.
"""
