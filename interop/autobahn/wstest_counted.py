# Python 2.7, like the testsuite itself.
"""Runs `wstest -m fuzzingclient -s SPEC` with COUNT messages in each case of sections 12 and 13.

Usage: python wstest_counted.py COUNT SPEC

The suite has no option for the count: it stands, as 1000, on the class of each case.
"""
import sys

# Before anything else of the suite: importing it chooses Twisted's reactor.
from autobahntestsuite import wstest
from autobahntestsuite.case import Cases

count = int(sys.argv[1])
for case in Cases:
    if hasattr(case, "COUNT"):
        case.DESCRIPTION = case.DESCRIPTION.replace("Send %d " % case.COUNT, "Send %d " % count)
        case.COUNT = count

sys.argv = ["wstest", "--mode", "fuzzingclient", "--spec", sys.argv[2]]
wstest.run()
