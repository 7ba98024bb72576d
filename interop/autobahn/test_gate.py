"""Tests of the gate: python3 -m unittest discover -s interop/autobahn"""

import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
import gate  # noqa: E402

COUNT = 50


class GateTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_a_perfect_report_passes(self):
        verdict = self.judge(perfect_report())
        self.assertTrue(verdict.passed)
        self.assertEqual(verdict.summary("ws deflate", 41.2), "autobahn ws deflate: 514 OK, 3 INFORMATIONAL, 0 failed (517 cases, 41 s)")

    def test_a_perfect_report_without_deflate_passes(self):
        verdict = self.judge(perfect_report(deflate=False), deflate=False)
        self.assertTrue(verdict.passed)
        self.assertEqual(verdict.summary("ws no-deflate", 16), "autobahn ws no-deflate: 298 OK, 3 INFORMATIONAL, 216 UNIMPLEMENTED as expected, 0 failed (517 cases, 16 s)")

    def test_the_three_informational_cases_may_also_be_ok(self):
        report = perfect_report()
        for case in ["7.1.6", "7.13.1", "7.13.2"]:
            report[case].update(behavior="OK", behaviorClose="OK")
        self.assertTrue(self.judge(report).passed)

    def test_no_report_at_all_fails(self):
        verdict = gate.judge(self.folder, expectation())
        self.assertFalse(verdict.passed)
        self.assertEqual(len(verdict.bad), 517)
        self.assertIn("wrote no report", str(verdict.bad[0]))

    def test_a_report_cut_short_fails(self):
        (self.folder / "index.json").write_text('{"taut": {"1.1.1"')
        verdict = gate.judge(self.folder, expectation())
        self.assertFalse(verdict.passed)
        self.assertIn("not readable", str(verdict.bad[0]))

    def test_a_missing_agent_fails(self):
        verdict = self.judge(perfect_report(), agent="another")
        self.assertFalse(verdict.passed)
        self.assertEqual(len(verdict.bad), 517)
        self.assertIn("met nobody of that name", str(verdict.bad[0]))

    def test_a_missing_case_fails(self):
        report = perfect_report()
        del report["6.22.34"]
        self.assert_only_bad(report, "6.22.34", "missing")

    def test_a_missing_section_fails(self):
        report = {case: result for case, result in perfect_report().items() if not gate.is_deflate_case(case)}
        verdict = self.judge(report)
        self.assertFalse(verdict.passed)
        self.assertEqual(len(verdict.bad), 216)

    def test_many_missing_cases_are_shown_on_one_line_and_the_bad_ones_still_named(self):
        report = perfect_report()
        for case in gate.CASES[gate.CASES.index("5.20") :]:
            del report[case]
        report["5.19"]["behavior"] = "FAILED"
        lines = self.judge(report).bad_lines()
        self.assertEqual(len(lines), 2)
        self.assertIn("5.19", lines[0])
        self.assertEqual(lines[1], "  454 cases, the first 5.20, the last 13.7.18: missing from the report")

    def test_a_case_that_was_not_to_be_run_fails(self):
        report = perfect_report()
        report["9.9.1"] = dict(report["9.1.1"])
        self.assert_only_bad(report, "9.9.1", "unexpected")

    def test_an_empty_selection_never_passes(self):
        self.assertFalse(self.judge({}, cases=[]).passed)

    def test_every_behavior_but_ok_fails(self):
        for behavior in ["NON-STRICT", "FAILED", "UNIMPLEMENTED", "INFORMATIONAL", "WRONG CODE", "", None]:
            with self.subTest(behavior=behavior):
                report = perfect_report()
                report["6.4.1"]["behavior"] = behavior
                self.assert_only_bad(report, "6.4.1", str(behavior))

    def test_every_close_but_ok_fails(self):
        for behavior in ["FAILED", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT", "INFORMATIONAL", "", None]:
            with self.subTest(behavior=behavior):
                report = perfect_report()
                report["7.3.6"]["behaviorClose"] = behavior
                self.assert_only_bad(report, "7.3.6", f"close {behavior}")

    def test_the_informational_cases_fail_on_anything_worse(self):
        for case in ["7.1.6", "7.13.1", "7.13.2"]:
            for field, seen in [("behavior", "FAILED"), ("behaviorClose", "close FAILED")]:
                with self.subTest(case=case, field=field):
                    report = perfect_report()
                    report[case][field] = "FAILED"
                    self.assert_only_bad(report, case, seen)

    def test_a_result_without_its_verdicts_fails(self):
        for field, seen in [("behavior", "None"), ("behaviorClose", "close None")]:
            with self.subTest(field=field):
                report = perfect_report()
                del report["1.1.1"][field]
                self.assert_only_bad(report, "1.1.1", seen)

    def test_unimplemented_deflate_fails_when_deflate_is_wanted(self):
        verdict = self.judge(perfect_report(deflate=False), deflate=True)
        self.assertFalse(verdict.passed)
        self.assertEqual({bad.seen for bad in verdict.bad}, {"UNIMPLEMENTED"})
        self.assertEqual(len(verdict.bad), 216)

    def test_working_deflate_fails_when_no_deflate_is_wanted(self):
        verdict = self.judge(perfect_report(deflate=True), deflate=False)
        self.assertFalse(verdict.passed)
        self.assertEqual(len(verdict.bad), 216)

    def test_fewer_echoes_than_asked_for_fail(self):
        for stats in [{"incomingWebSocketMessages": COUNT - 1}, {}, None]:
            with self.subTest(stats=stats):
                report = perfect_report()
                report["12.1.1"]["trafficStats"] = stats
                self.assert_only_bad(report, "12.1.1", "wrong count")

    def test_a_bad_case_is_shown_with_its_description_and_what_was_seen(self):
        report = perfect_report()
        report["9.1.1"].update(behavior="FAILED", result="Did not receive message.", description="Send <b>64k</b> &amp; more.")
        verdict = self.judge(report)
        shown = str(verdict.bad[0])
        for words in ["9.1.1", "behavior FAILED, wanted OK: Did not receive message.", "Send 64k & more.", "close code 1000"]:
            self.assertIn(words, shown)
        self.assertEqual(verdict.summary("wss deflate", 9), "autobahn wss deflate: 513 OK, 3 INFORMATIONAL, 1 failed (1 FAILED) (517 cases, 9 s)")

    def assert_only_bad(self, report, case, seen):
        verdict = self.judge(report)
        self.assertFalse(verdict.passed)
        self.assertEqual([(bad.case, bad.seen) for bad in verdict.bad], [(case, seen)])

    def judge(self, report, **changes):
        """Writes the report the way the testsuite does, one index and a file for each case, and judges it."""
        index = {}
        for case, details in report.items():
            name = f"taut_case_{case.replace('.', '_')}.json"
            (self.folder / name).write_text(json.dumps(details))
            index[case] = {field: details[field] for field in ["behavior", "behaviorClose"] if field in details}
            index[case]["reportfile"] = name
        (self.folder / "index.json").write_text(json.dumps({"taut": index}))
        return gate.judge(self.folder, expectation(**changes))


class SelectTest(unittest.TestCase):
    def test_the_table_has_the_517_cases_of_the_suite_once_each(self):
        self.assertEqual(len(gate.CASES), 517)
        self.assertEqual(len(set(gate.CASES)), 517)
        self.assertEqual(sum(not gate.is_deflate_case(case) for case in gate.CASES), 301)

    def test_a_pattern_selects_a_section_and_not_its_namesakes(self):
        self.assertEqual(len(gate.select(["1.*"])), 16)
        self.assertEqual(gate.select(["7.1.6", "7.1.1"]), ["7.1.1", "7.1.6"])
        self.assertEqual(gate.select(["*"]), gate.CASES)

    def test_a_pattern_that_matches_nothing_is_refused(self):
        for pattern in ["9.9.1", "8.*", ""]:
            with self.subTest(pattern=pattern), self.assertRaises(ValueError):
                gate.select(["1.*", pattern])


def expectation(agent="taut", cases=gate.CASES, deflate=True, count=COUNT):
    return gate.Expectation(agent, list(cases), deflate, count)


def perfect_report(deflate=True):
    report = {}
    for case in gate.CASES:
        details = {"behavior": "OK", "behaviorClose": "OK", "remoteCloseCode": 1000, "description": f"The case {case}.", "result": "As expected.", "resultClose": "Properly closed.", "received": []}
        if case in ("7.1.6", "7.13.1", "7.13.2"):
            details.update(behavior="INFORMATIONAL", behaviorClose="INFORMATIONAL")
        if case.startswith(("12.", "13.")):
            if deflate:
                details["trafficStats"] = {"incomingWebSocketMessages": COUNT}
            else:
                details["behavior"] = "UNIMPLEMENTED"
        report[case] = details
    return report


if __name__ == "__main__":
    unittest.main()
