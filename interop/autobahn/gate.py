"""What a perfect Autobahn report is, and the gate that accepts nothing less.

wstest itself exits with 0 whatever happens, and leaves out of its report a server that it could not reach and a case
that a client did not ask for. So the gate asks for every case by name.
"""

import fnmatch
import html
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# Every group of cases of the testsuite 25.10.1 and its size: "1.1": 8 stands for 1.1.1 to 1.1.8.
SIZE_OF_GROUP = {
    "1.1": 8, "1.2": 8,                                              # framing: text, binary
    "2": 11,                                                         # pings and pongs
    "3": 7,                                                          # reserved bits
    "4.1": 5, "4.2": 5,                                              # reserved opcodes
    "5": 20,                                                         # fragmentation
    "6.1": 3, "6.2": 4, "6.3": 2, "6.4": 4, "6.5": 5, "6.6": 11,     # UTF-8
    "6.7": 4, "6.8": 2, "6.9": 4, "6.10": 3, "6.11": 5, "6.12": 8,
    "6.13": 5, "6.14": 10, "6.15": 1, "6.16": 3, "6.17": 5, "6.18": 5,
    "6.19": 5, "6.20": 7, "6.21": 8, "6.22": 34, "6.23": 7,
    "7.1": 6, "7.3": 6, "7.5": 1, "7.7": 13, "7.9": 9, "7.13": 2,    # the close handshake
    "9.1": 6, "9.2": 6, "9.3": 9, "9.4": 9, "9.5": 6, "9.6": 6,      # large messages, many fragments
    "9.7": 6, "9.8": 6,
    "10.1": 1,                                                       # auto-fragmentation
    "12.1": 18, "12.2": 18, "12.3": 18, "12.4": 18, "12.5": 18,      # permessage-deflate: kinds of payload
    "13.1": 18, "13.2": 18, "13.3": 18, "13.4": 18, "13.5": 18,      # permessage-deflate: parameters
    "13.6": 18, "13.7": 18,
}

# Cases the suite never grades better than INFORMATIONAL, whatever its peer does; that goes for their close too.
INFORMATIONAL_CASES = {"7.1.6", "7.13.1", "7.13.2"}

# The sections that test permessage-deflate. With the extension each must be OK. Without it each must be UNIMPLEMENTED:
# anything else means that the program under test negotiated what it was told not to.
DEFLATE_SECTIONS = {"12", "13"}

CASES = [f"{group}.{number}" for group, size in SIZE_OF_GROUP.items() for number in range(1, size + 1)]


@dataclass(frozen=True)
class Expectation:
    """What the report of one run must say."""

    agent: str
    """The name under which the report lists the program under test."""
    cases: list
    """The ids of the cases that must be there: these, all of these and no others."""
    deflate: bool
    """Whether it was told to negotiate permessage-deflate."""
    count: int
    """Messages in each case of sections 12 and 13."""

    def behavior(self, case):
        if case in INFORMATIONAL_CASES:
            return {"OK", "INFORMATIONAL"}
        if is_deflate_case(case) and not self.deflate:
            return {"UNIMPLEMENTED"}
        return {"OK"}

    def behavior_close(self, case):
        return {"OK", "INFORMATIONAL"} if case in INFORMATIONAL_CASES else {"OK"}


@dataclass(frozen=True)
class BadCase:
    case: str
    description: str
    seen: str
    """The verdict as the summary counts it, such as NON-STRICT or missing."""
    detail: str

    def __str__(self):
        text = f"  {self.case}  {self.detail}"
        return f"{text}\n      {self.description}" if self.description else text


class Verdict:
    """The outcome of judging one report: `passed`, and the words to print."""

    def __init__(self, expectation):
        self.expectation = expectation
        self.good = Counter()
        self.bad = []

    @property
    def passed(self):
        return not self.bad and sum(self.good.values()) == len(self.expectation.cases) > 0

    def bad_lines(self):
        """Each bad case with what was seen; those without a result, which may be hundreds, together."""
        lines = [str(bad) for bad in self.bad if bad.seen != "missing"]
        missing = [bad for bad in self.bad if bad.seen == "missing"]
        if len(missing) > 3:
            lines.append(f"  {len(missing)} cases, the first {missing[0].case}, the last {missing[-1].case}: {missing[0].detail}")
        else:
            lines += [str(bad) for bad in missing]
        return lines

    def summary(self, configuration, seconds):
        parts = [f"{self.good['OK']} OK", f"{self.good['INFORMATIONAL']} INFORMATIONAL"]
        if self.good["UNIMPLEMENTED"]:
            parts.append(f"{self.good['UNIMPLEMENTED']} UNIMPLEMENTED as expected")
        failed = f"{len(self.bad)} failed"
        if self.bad:
            kinds = Counter(bad.seen for bad in self.bad)
            failed += " (" + ", ".join(f"{number} {kind}" for kind, number in kinds.most_common()) + ")"
        parts.append(failed)
        cases = len(self.expectation.cases)
        return f"autobahn {configuration}: {', '.join(parts)} ({cases} {'case' if cases == 1 else 'cases'}, {seconds:.0f} s)"


def select(patterns):
    """The ids of the cases that match one of `patterns`, such as `6.*` or `7.1.6`; a pattern that matches none is a ValueError."""
    for pattern in patterns:
        if not fnmatch.filter(CASES, pattern):
            raise ValueError(f"no case matches {pattern!r}: give ids or patterns such as 7.1.6 or '6.*'")
    return [case for case in CASES if any(fnmatch.fnmatchcase(case, pattern) for pattern in patterns)]


def judge(report, expectation):
    """Holds the report in the folder `report` against the expectation."""
    report = Path(report)
    verdict = Verdict(expectation)
    results, problem = results_of_agent(report, expectation.agent)
    for case in expectation.cases:
        result = results.get(case)
        if result is None:
            verdict.bad.append(BadCase(case, "", "missing", problem or "missing from the report"))
            continue
        details = details_of_case(report, result)
        wrong = defect(case, result, details, expectation)
        if wrong is None:
            verdict.good[result["behavior"]] += 1
        else:
            verdict.bad.append(BadCase(case, plain(details.get("description", "")), *wrong))
    for case in sorted(results.keys() - set(expectation.cases)):
        verdict.bad.append(BadCase(case, "", "unexpected", "in the report, but was not to be run"))
    return verdict


def defect(case, result, details, expectation):
    """What is wrong with one result: the word for the summary and the sentence, or None."""
    behavior, behavior_close = result.get("behavior"), result.get("behaviorClose")
    wanted, wanted_close = expectation.behavior(case), expectation.behavior_close(case)
    if behavior not in wanted:
        said = plain(details.get("result", ""))
        return str(behavior), f"behavior {behavior}, wanted {' or '.join(sorted(wanted))}: {said} {events(details)}"
    if behavior_close not in wanted_close:
        said = plain(details.get("resultClose", ""))
        kind = f"close {behavior_close}"
        return kind, f"behaviorClose {behavior_close}, wanted {' or '.join(sorted(wanted_close))}: {said} {events(details)}"
    if is_deflate_case(case) and expectation.deflate:
        # The count is patched into the suite from outside: make sure that the patch took, or fifty messages
        # may have been none.
        echoed = (details.get("trafficStats") or {}).get("incomingWebSocketMessages")
        if echoed != expectation.count:
            return "wrong count", f"{echoed} messages were echoed, wanted {expectation.count}"
    return None


def is_deflate_case(case):
    return case.split(".")[0] in DEFLATE_SECTIONS


def results_of_agent(report, agent):
    """The agent's results by case id, and why there are none if there are none."""
    try:
        index = json.loads((report / "index.json").read_text())
    except FileNotFoundError:
        return {}, "the testsuite wrote no report"
    except ValueError as error:
        return {}, f"index.json is not readable: {error}"
    if agent not in index:
        return {}, f"the report does not know {agent}: the testsuite has met nobody of that name"
    return index[agent], None


def details_of_case(report, result):
    try:
        return json.loads((report / result["reportfile"]).read_text())
    except (KeyError, OSError, ValueError):
        return {}


def events(details):
    """What the suite received before the connection was closed, and how it was closed."""
    received = plain(json.dumps(details.get("received", [])), 120)
    return f"[received {received}, close code {details.get('remoteCloseCode')}]"


def plain(text, limit=200):
    """The suite's own words without their HTML, on one line, cut to `limit` characters."""
    words = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"
