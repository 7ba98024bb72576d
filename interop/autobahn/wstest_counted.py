# Python 2.7, like the testsuite itself.
"""Runs `wstest -m MODE -s SPEC` with COUNT messages in each case of sections 12 and 13.

Usage: python wstest_counted.py MODE COUNT SPEC

The suite has no option for the count: it stands, as 1000, on the class of each case.

In the mode `fuzzingserver` it listens on 127.0.0.1 alone, at a port of the system's choosing, whatever SPEC says, and
the first line on stdout is `listening on ws://127.0.0.1:PORT` (wss with a certificate in SPEC). All else goes to stderr.
"""
import sys

# Before anything else of the suite: importing it chooses Twisted's reactor.
from autobahntestsuite import wstest
from autobahntestsuite import fuzzing
from autobahntestsuite.case import Cases
from twisted.internet import reactor


def listen_locally(factory, context_factory=None):
    """In place of listenWS, which knows neither an interface nor port 0."""
    if factory.isSecure:
        port = reactor.listenSSL(0, factory, context_factory, interface="127.0.0.1").getHost().port
    else:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1").getHost().port
    # The port that a client's Host header has to name.
    factory.port = factory.externalPort = port
    stdout.write("listening on %s://127.0.0.1:%d\n" % ("wss" if factory.isSecure else "ws", port))
    stdout.flush()


mode, count, spec = sys.argv[1:]
for case in Cases:
    if hasattr(case, "COUNT"):
        case.DESCRIPTION = case.DESCRIPTION.replace("Send %d " % case.COUNT, "Send %d " % int(count))
        case.COUNT = int(count)

stdout, sys.stdout = sys.stdout, sys.stderr
fuzzing.listenWS = listen_locally

sys.argv = ["wstest", "--mode", mode, "--spec", spec, "--webport", "0"]
wstest.run()
