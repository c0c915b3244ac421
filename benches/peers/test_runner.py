"""Promises of the runner: python3 -m unittest discover benches/peers"""
import json
import pathlib
import sys
import tempfile
import time
import unittest

import measure
import ours
import report


def a_round(mine, peer, disturbed=False, **more):
    return {"ours": {"": mine}, "peer": {"": peer}, "disturbed": disturbed, "core_to_core_ns": [30.0], **more}


def python(code, **job):
    return measure.Job([([sys.executable, "-c", code], {})], **job)


class Ratios(unittest.TestCase):
    def test_above_one_is_ahead_for_rates_and_for_times(self):
        rounds = [a_round(10, 5)]
        self.assertEqual(report.summarize(rounds, True)[""]["ratio"], 2)
        self.assertEqual(report.summarize(rounds, False)[""]["ratio"], 0.5)

    def test_the_ratio_is_of_medians_and_the_spread_of_single_rounds(self):
        got = report.summarize([a_round(10, 5), a_round(12, 4), a_round(20, 5)], True)[""]
        self.assertEqual((got["ours"], got["peer"], got["ratio"]), (12, 5, 12 / 5))
        self.assertEqual((got["lowest"], got["highest"]), (2, 4))

    def test_a_disturbed_round_counts_only_where_there_is_no_other(self):
        mixed = report.summarize([a_round(10, 5), a_round(99, 5, disturbed=True)], True)[""]
        self.assertEqual((mixed["rounds"], mixed["ours"], mixed["disturbed"]), (1, 10, False))
        alone = report.summarize([a_round(99, 5, disturbed=True)], True)[""]
        self.assertEqual((alone["ours"], alone["disturbed"]), (99, True))

    def test_a_target_never_reached_is_no_number(self):
        self.assertEqual(report.summarize([a_round(7, None)], False), {})

    def test_a_failed_peer_stays_in_the_table_with_its_reason(self):
        failed = {"disturbed": False, "core_to_core_ns": [30.0], "failed": "peer: exit code 1"}
        entry = {"name": "x/y", "unit": "s", "rounds": [failed], "summary": report.summarize([failed], False)}
        text = "\n".join(report.table([entry]))
        self.assertIn("none", text)
        self.assertIn("x/y: peer: exit code 1", text)

    def test_cores_that_moved_are_told(self):
        self.assertIn("moved", report.cores_apart([a_round(1, 1), a_round(1, 1) | {"core_to_core_ns": [160.0]}]))
        self.assertIn("near", report.cores_apart([a_round(1, 1)]))


class Jobs(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.log = pathlib.Path(self.folder.name) / "log"

    def tearDown(self):
        self.folder.cleanup()

    def test_a_result_is_found_even_with_another_ranks_line_glued_to_it(self):
        outcome = measure.run(python('print("noise RESULT {\\"rate\\": 5}CHECK")'), self.log)
        self.assertEqual(outcome.result(), {"rate": 5})

    def test_a_failure_says_what_the_job_said_last(self):
        with self.assertRaisesRegex(measure.Failed, "exit code 3.*Error: gone"):
            measure.run(python('import sys; print("Error: gone"); sys.exit(3)'), self.log)

    def test_a_job_that_hangs_is_ended(self):
        start = time.time()
        with self.assertRaisesRegex(measure.Failed, "not done"):
            measure.run(python("import time; time.sleep(60)", timeout=0.5), self.log)
        self.assertLess(time.time() - start, 10)

    def test_a_failed_rank_ends_the_others(self):
        job = measure.Job(python("import time; time.sleep(60)").commands + python("raise SystemExit(2)").commands)
        start = time.time()
        with self.assertRaisesRegex(measure.Failed, "exit code 2"):
            measure.run(job, self.log)
        self.assertLess(time.time() - start, 10)

    def test_memory_of_a_grandchild_counts(self):
        child = "b = bytearray(200 << 20); import time; time.sleep(0.6)"
        code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
        self.assertGreater(measure.run(python(code, memory=True), self.log).peak_mib, 200)


class RunFolder(unittest.TestCase):
    def test_the_rate_is_the_median_epoch_after_the_first_with_time_between_steps_taken_off(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            rows = [{"kind": "step", "epoch": e, "samples_per_s": r}
                    for e, rates in ((1, [10, 10]), (2, [100, 50]), (3, [100, 100])) for r in rates]
            spent = sum(100 / row["samples_per_s"] for row in rows)
            rows.append({"kind": "summary", "seconds": 2 * spent})
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            # Epochs 2 and 3: 200 samples in 3 s, 200 in 2 s.
            self.assertAlmostEqual(ours.rate(folder, 100), (200 / 3 + 100) / 2 / 2)

    def test_a_growing_file_is_followed_by_whole_lines(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            reached = ours.Follower(folder, "eval", lambda line: line["accuracy"] >= 0.99)
            self.assertFalse(reached())
            with open(folder / "metrics.jsonl", "w") as file:
                for text, wanted in (('{"kind":"eval","accuracy":0.98}\n', False), ('{"kind":"eval","acc', False),
                                     ('uracy":0.992}\n', True)):
                    file.write(text)
                    file.flush()
                    self.assertEqual(reached(), wanted)


if __name__ == "__main__":
    unittest.main()
