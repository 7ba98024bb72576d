"""Tests of ./test and interop/install, over folders of made-up parts: python3 -m unittest discover -s tests.d"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
REPOSITORY = Path(__file__).resolve().parent.parent

PASSES = 'purpose="it passes"\nquick=yes\nrun() {\n  echo all is well\n}\n'
FAILS = 'purpose="it fails"\nrun() {\n  false\n  echo never reached\n}\n'
SKIPS = 'purpose="it skips"\nrun() {\n  skip "there is no moon here"\n}\n'


class RunnerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # A shell without job control has what it starts in the background ignore this signal, and ./test could not catch it then.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="taut-runner-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.parts = self.folder / "parts"
        self.parts.mkdir()
        self.environment = {
            **os.environ,
            "TAUT_TEST_PARTS": str(self.parts),
            "TAUT_CACHE": str(self.folder / "cache"),
            "CARGO_TARGET_DIR": str(self.folder / "target"),
        }

    def part(self, name, text):
        (self.parts / name).write_text(text)

    def program(self, name, text):
        """A program that is found before the system's own of that name."""
        bin = self.folder / "bin"
        bin.mkdir(exist_ok=True)
        (bin / name).write_text("#!/usr/bin/env bash\n" + text)
        (bin / name).chmod(0o755)
        self.environment["PATH"] = f"{bin}:{os.environ['PATH']}"

    def hide(self, name):
        """From now on the system's program of that name is not found."""
        programs = self.folder / "programs"
        programs.mkdir()
        for program in Path("/usr/bin").iterdir():
            if program.name != name:
                (programs / program.name).symlink_to(program)
        self.environment["PATH"] = f"{self.folder / 'bin'}:{programs}"

    def start(self, *arguments):
        process = subprocess.Popen(
            [REPOSITORY / "test", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Under nohup it is ignored, and bash cannot trap what was ignored when it began.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(self.end, process)
        return process

    def end(self, process):
        """Asked to, it ends what it has started; killed, it could not."""
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def run_test(self, *arguments):
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def assert_gone(self, pid):
        with self.assertRaises(ProcessLookupError, msg="it still runs"):
            os.kill(int(pid), 0)

    def test_parts_run_in_the_order_of_their_numbers_and_all_may_pass(self):
        self.part("20-second", PASSES)
        self.part("10-first", PASSES)
        code, output = self.run_test()
        self.assertEqual(code, 0)
        self.assertRegex(output, r"(?s)==== first: it passes\nall is well\n.*==== second: it passes\nall is well\n")
        self.assertIn("2 passed, 0 failed, 0 skipped", output)

    def test_a_failed_part_fails_the_run_and_the_others_still_run(self):
        self.part("10-bad", FAILS)
        self.part("20-good", PASSES)
        code, output = self.run_test()
        self.assertEqual(code, 1)
        self.assertNotIn("never reached", output)
        self.assertRegex(output, r"bad +FAILED")
        self.assertRegex(output, r"good +passed")

    def test_a_part_that_cannot_run_is_skipped_and_the_summary_says_why(self):
        self.part("10-moon", SKIPS)
        code, output = self.run_test()
        self.assertEqual(code, 0)
        self.assertIn("!!!! moon did NOT run: there is no moon here", output)
        self.assertIn("0 passed, 0 failed, 1 skipped", output)

    def test_a_note_of_a_part_that_passes_is_in_the_summary(self):
        self.part("10-noted", 'purpose="it notes"\nrun() {\n  note "half of it"\n}\n')
        code, output = self.run_test()
        self.assertEqual(code, 0)
        self.assertIn("!!!! noted: half of it", output)

    def test_tests_that_did_not_run_inside_a_part_are_named_and_counted_in_the_last_line(self):
        self.part("10-inside", 'purpose="it runs tests"\nrun() {\n  printf "%s\\n" "one: no moon" two >"$TAUT_SKIPPED"\n}\n')
        self.part("20-whole", PASSES)
        code, output = self.run_test()
        self.assertEqual(code, 0)
        self.assertIn("!!!! inside: this test did NOT run: one: no moon\n", output)
        self.assertEqual(output.splitlines()[-1], "2 passed, 0 failed, 0 skipped; tests left out inside of them: 2")

    def test_every_part_has_a_row_in_the_table_of_the_contributors_page(self):
        page = (REPOSITORY / "CONTRIBUTING.md").read_text()
        for part in (REPOSITORY / "tests.d").glob("[0-9]*-*"):
            name = part.name.split("-", 1)[1]
            self.assertIn(f"\n| `{name}` | ", page)

    def test_what_an_earlier_run_has_left_is_not_told_again(self):
        self.part("10-noted", 'purpose="it notes"\nrun() {\n  note "half of it"\n  echo "test a::old has been running for over 60 seconds" >"$logs/noted.log"\n}\n')
        self.run_test()
        self.part("10-noted", 'purpose="it hangs"\nrun() {\n  sleep 300\n}\n')
        self.environment["TAUT_TEST_DEADLINE"] = "1"
        code, output = self.run_test()
        self.assertEqual(code, 1)
        self.assertNotIn("half of it", output)
        self.assertNotIn("a::old", output)

    def test_a_part_that_hangs_is_ended_at_its_deadline_and_its_running_tests_are_named(self):
        self.part(
            "10-hang",
            'purpose="it hangs"\nrun() {\n  printf "%s\\n" "test a::slow has been running for over 60 seconds" "test a::late has been running '
            'for over 60 seconds" "test a::late ... ok" >"$logs/hang.log"\n  sleep 300 & echo "pid $!"\n  wait\n}\n',
        )
        self.part("20-next", PASSES)
        self.environment["TAUT_TEST_DEADLINE"] = "2"
        code, output = self.run_test()
        self.assertEqual(code, 1)
        self.assertIn("!!!! hang: it did not end within 2 s; still running: a::slow\n", output.replace("slow \n", "slow\n"))
        self.assertLess(int(re.search(r"hang +FAILED +(\d+) s", output)[1]), 30)
        self.assertRegex(output, r"next +passed")
        self.assert_gone(re.search(r"pid (\d+)", output)[1])

    def test_a_part_that_ignores_sigterm_is_killed(self):
        self.part("10-deaf", 'purpose="it is deaf"\nrun() {\n  trap "" TERM\n  echo "pid $BASHPID"\n  while :; do sleep 1 || true; done\n}\n')
        self.environment["TAUT_TEST_DEADLINE"] = "1"
        code, output = self.run_test()
        self.assertEqual(code, 1)
        self.assert_gone(re.search(r"pid (\d+)", output)[1])

    def test_what_a_part_leaves_running_is_ended(self):
        self.part("10-litter", 'purpose="it litters"\nrun() {\n  sleep 300 & echo "pid $!"\n}\n')
        code, output = self.run_test()
        self.assertEqual(code, 0)
        self.assert_gone(re.search(r"pid (\d+)", output)[1])

    def test_a_signal_ends_the_run_and_all_that_it_has_started(self):
        for number, code in [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]:
            with self.subTest(signal=number):
                self.part("10-hang", 'purpose="it hangs"\nrun() {\n  sleep 300 & echo "pid $!"\n  wait\n}\n')
                process = self.start("hang")
                for line in process.stdout:
                    if found := re.search(r"pid (\d+)", line):
                        break
                process.send_signal(number)
                output, _ = process.communicate(timeout=60)
                self.assertEqual(process.returncode, code)
                self.assertIn("ending hang", output)
                self.assert_gone(found[1])

    def test_a_signal_while_a_part_is_being_started_ends_it_too(self):
        self.part("10-new", 'purpose="it is new"\nrun() {\n  sleep 300\n}\n')
        for command in ["part_of[", "watchdog_of["]:
            with self.subTest(before=command):
                # Bash reads this file first. The signal comes before the command that notes what has just been started.
                (self.folder / "traps").write_text(f'set -T\ntrap \'[[ $BASH_COMMAND != "{command}"*=* ]] || {{ echo "pid $!"; kill -TERM $$; }}\' DEBUG\n')
                self.environment["BASH_ENV"] = str(self.folder / "traps")
                code, output = self.run_test()
                self.assertEqual(code, 143, output)
                self.assert_gone(re.search(r"pid (\d+)", output)[1])

    def installs(self, command):
        """A part that wants a program; what installs it runs this command, in the folder of the test."""
        self.program("apt-get", f'[[ " $* " == *" install "* ]] || exit 0\ncd "{self.folder}"\n{command}\n')
        self.program("sudo", '[[ $1 != -n ]] || shift\nexec "$@"\n')
        self.hide("tinyproxy")
        self.part("80-wants", 'purpose="it wants a program"\nneeds="tinyproxy"\nrun() {\n  tinyproxy\n}\n')

    def waits_for(self, file, command):
        return f'purpose="it waits"\nrun() {{\n  until [[ -s "{self.folder}/{file}" ]]; do sleep 0.1; done\n  {command}\n}}\n'

    def assert_ended_by_a_signal(self):
        """What has left its number in the file `pid` ends when a signal ends the run."""
        self.part("10-first", self.waits_for("pid", "echo started; sleep 300"))
        process = self.start()
        self.assertTrue(any("started" in line for line in process.stdout))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 143)
        self.assert_gone((self.folder / "pid").read_text())

    def test_what_is_still_being_installed_is_ended_with_the_run(self):
        self.installs("ln -s /bin/true bin/tinyproxy\necho $$ >pid\nexec sleep 300")
        self.part("10-first", self.waits_for("pid", "true"))
        code, output = self.run_test()
        self.assertEqual(code, 0, output)
        self.assert_gone((self.folder / "pid").read_text())

    def test_a_signal_ends_what_is_being_installed(self):
        self.installs("echo $$ >pid\nexec sleep 300")
        self.assert_ended_by_a_signal()

    def test_a_part_that_is_to_be_alone_waits_until_all_is_installed(self):
        self.installs("sleep 1\nln -s /bin/true bin/tinyproxy")
        self.part("10-first", PASSES)
        self.part("20-alone", 'purpose="it is alone"\nalone=yes\nrun() {\n  command -v tinyproxy\n}\n')
        code, output = self.run_test()
        self.assertEqual(code, 0, output)

    def test_what_a_later_part_wants_is_built_while_earlier_ones_run_and_with_low_priority(self):
        self.part("10-first", self.waits_for("built", "true"))
        self.part("20-later", f'purpose="it wants a build"\nahead=build\nrun() {{\n  cat "{self.folder}/built"\n}}\nbuild() {{\n  ps -o ni= -p $BASHPID >"{self.folder}/built"\n}}\n')
        code, output = self.run_test()
        self.assertEqual(code, 0, output)
        self.assertRegex(output, r"==== later: it wants a build\n +19\n")

    def test_a_build_that_parts_share_is_done_once_ahead(self):
        self.part("10-first", self.waits_for("built", "true"))
        self.program("cargo", f'echo "$@" >>"{self.folder}/calls"\n')
        wants = 'purpose="it wants the release build"\nahead=release\nrun() {\n  true\n}\n'
        for name in ["20-second", "30-third"]:
            self.part(name, wants)
        self.part("40-last", f'purpose="it tells"\nahead=tell\nrun() {{\n  true\n}}\ntell() {{\n  echo >"{self.folder}/built"\n}}\n')
        code, output = self.run_test()
        self.assertEqual(code, 0, output)
        self.assertEqual((self.folder / "calls").read_text(), "run --release --locked -- --version\n")

    def test_a_build_ahead_that_fails_or_skips_is_left_to_the_part(self):
        self.part("10-first", self.waits_for("third", "true"))
        build = 'purpose="it wants a build"\nahead=build\nrun() {\n  echo all is well\n}\nbuild() {\n  %s\n}\n'
        self.part("20-bad", build % f'false\n  echo >"{self.folder}/reached"')
        self.part("30-moon", build % 'skip "there is no moon here"')
        self.part("40-third", build % f'echo done >"{self.folder}/third"')
        code, output = self.run_test()
        self.assertEqual(code, 0, output)
        self.assertNotIn("moon here", output)
        self.assertFalse((self.folder / "reached").exists())
        self.assertIn("4 passed, 0 failed, 0 skipped", output)

    def test_what_is_still_being_built_ahead_is_ended_with_the_run_and_by_a_signal(self):
        ahead = f'purpose="it wants a build"\nahead=build\nrun() {{\n  true\n}}\nbuild() {{\n  sleep 300 & echo $! >"{self.folder}/pid"\n  wait\n}}\n'
        self.part("20-later", ahead)
        self.part("10-first", self.waits_for("pid", "true"))
        code, output = self.run_test()
        self.assertEqual(code, 0, output)
        self.assert_gone((self.folder / "pid").read_text())
        (self.folder / "pid").unlink()
        self.assert_ended_by_a_signal()

    def a_package(self, source):
        """A package in the folder of the test; the program `cargo` builds it, whatever it is asked to."""
        package = self.folder / "package"
        (package / "src").mkdir(parents=True, exist_ok=True)
        (package / "src" / "main.rs").write_text(source)
        (package / "Cargo.toml").write_text('[package]\nname = "package"\nedition = "2024"\n')
        (package / "Cargo.lock").write_text('version = 4\n\n[[package]]\nname = "package"\nversion = "0.0.0"\n')
        self.program("cargo", f'cd "{package}" && exec "{shutil.which("cargo")}" "$@"\n')

    def test_in_one_pass_clippy_compiles_what_is_tested_and_its_part_alone_fails_of_warnings(self):
        self.environment["TAUT_TEST_ONE_PASS"] = "yes"
        self.part("10-lint", 'purpose="it lints"\nrun() {\n  build_and_lint --locked\n}\n')
        self.part("20-unit", 'purpose="it tests"\nrun() {\n  tested_cargo test --locked\n}\n')
        unused, redundant = "fn main() {}\nfn unused() {}\n", "fn main() {\n    let name = String::new();\n    println!(\"{}\", name.to_string().len() + 0);\n}\n"
        test = "#[test]\nfn it_runs() {}\n"
        for source, result in [("fn main() {}\n", 0), (unused, 1), (redundant, 1)]:
            self.a_package(source + test)
            for built in (1, 0):
                with self.subTest(source=source, built=built):
                    code, output = self.run_test()
                    self.assertEqual(code, result, output)
                    self.assertRegex(output, r"lint +FAILED" if result else r"lint +passed")
                    self.assertRegex(output, r"unit +passed")
                    self.assertIn("test it_runs ... ok", output)
                    self.assertEqual(output.count("Compiling package"), built)

    def test_no_build_is_by_clippy_unless_that_is_asked_for_and_the_release_build_never(self):
        self.program("cargo", 'echo "cargo $* by ${RUSTC_WORKSPACE_WRAPPER:-rustc}"\n')
        self.part("10-build", 'purpose="it builds"\nrun() {\n  tested_cargo test\n  examples\n  release\n}\n')
        for one_pass, compiler in [("", "rustc"), ("yes", "clippy-driver")]:
            self.environment["TAUT_TEST_ONE_PASS"] = one_pass
            code, output = self.run_test()
            self.assertEqual(code, 0, output)
            self.assertIn(f"cargo test by {compiler}\n", output)
            self.assertRegex(output, rf"cargo build .*--examples .* by {compiler}\n")
            self.assertRegex(output, r"cargo run --release .* by rustc\n")

    def test_parts_that_wait_run_together_and_each_output_comes_whole(self):
        # Each ends only once the other has begun.
        meet = 'purpose="it meets"\ntogether=yes\nrun() {\n  : >"$logs/%s.here"\n  echo %s begins\n  until [[ -e $logs/%s.here ]]; do sleep 0.1; done\n  echo %s ends\n}\n'
        self.part("10-a", meet % ("a", "a", "b", "a"))
        self.part("20-b", meet % ("b", "b", "a", "b"))
        self.part("30-alone", PASSES)
        self.environment["TAUT_TEST_DEADLINE"] = "20"
        code, output = self.run_test()
        self.assertEqual(code, 0)
        for part in "ab":
            self.assertIn(f"==== {part}: it meets\n{part} begins\n{part} ends\n", output)
            self.assertEqual(output.count(f"{part} begins"), 1)
        self.assertLess(output.index("a ends"), output.index("==== alone"))

    def test_a_part_that_hangs_beside_others_is_ended_alone(self):
        self.part("10-hang", 'purpose="it hangs"\ntogether=yes\nrun() {\n  sleep 300\n}\n')
        self.part("20-good", PASSES + "together=yes\n")
        self.environment["TAUT_TEST_DEADLINE"] = "2"
        code, output = self.run_test()
        self.assertEqual(code, 1)
        self.assertRegex(output, r"hang +FAILED")
        self.assertRegex(output, r"good +passed")

    def test_only_the_parts_that_are_asked_for_run(self):
        self.part("10-one", PASSES)
        self.part("20-two", PASSES)
        self.part("30-three", PASSES)
        code, output = self.run_test("three", "one", "one")
        self.assertEqual(code, 0)
        self.assertIn("not asked for: two", output)
        self.assertEqual(output.count("all is well"), 2)
        code, output = self.run_test("--skip", "two", "--skip=one")
        self.assertEqual(code, 0)
        self.assertIn("!!!! two did NOT run, as --skip said. Not checked: it passes", output)
        self.assertIn("1 passed, 0 failed, 2 skipped", output)

    def test_wrong_use_runs_nothing_and_names_the_parts(self):
        self.part("10-one", PASSES)
        self.part("20-two", PASSES)
        for arguments, reason in [
            (["three"], "there is no part 'three'"),
            (["--skip"], "--skip needs the name of a part"),
            (["--skip", "three"], "--skip three: there is no such part"),
            (["--skip=three"], "--skip three: there is no such part"),
            (["one", "--skip", "two"], "--skip two: that part was not asked for"),
            (["--wrong"], "there is no part '--wrong'"),
            ([""], "there is no part ''"),
        ]:
            with self.subTest(arguments=arguments):
                code, output = self.run_test(*arguments)
                self.assertEqual(code, 2)
                self.assertIn(reason, output)
                self.assertIn("The parts: one two", output)
                self.assertNotIn("all is well", output)

    def test_quick_runs_what_is_marked_so(self):
        self.part("10-one", PASSES)
        self.part("20-bad", FAILS)
        code, output = self.run_test("quick")
        self.assertEqual(code, 0)
        self.assertIn("not asked for: bad", output)

    def test_quick_installs_nothing(self):
        for program in ["apt-get", "npm", "pip", "sudo"]:
            self.program(program, f'echo {program} "$@" >>"{self.folder}/installed"\n')
        self.program("cargo", f'echo cargo "$@" >>"{self.folder}/installed"\n')
        self.part("10-maybe", 'purpose="it wants a tool"\nneeds="cargo-deny"\nquick=if-installed\nrun() {\n  echo ran\n}\n')
        code, output = self.run_test("quick")
        self.assertEqual(code, 0)
        self.assertIn("!!!! maybe did NOT run: missing here: cargo-deny, and quick installs nothing: './test maybe' does", output)
        self.part("20-must", 'purpose="it wants packages"\nneeds="npm:sdk-that-is-not-there"\nquick=yes\nrun() {\n  echo ran\n}\n')
        code, output = self.run_test("quick")
        self.assertEqual(code, 1)
        self.assertIn("missing here: ", output)
        self.assertNotIn("ran\n", output)
        self.assertFalse((self.folder / "installed").exists())
        # Asked for by its name, it is installed; without Python's packages cargo compiles it.
        self.program("python3", "exit 1\n")
        self.run_test("maybe")
        self.assertIn("cargo install", (self.folder / "installed").read_text())

    def test_quick_installs_no_compiler_either(self):
        for program in ["apt-get", "sudo", "cargo"]:
            self.program(program, f'echo {program} "$@" >>"{self.folder}/installed"\n')
        self.hide("cc")
        self.part("10-one", PASSES)
        code, output = self.run_test("quick")
        self.assertEqual(code, 2)
        self.assertIn("missing here: compiler", output)
        self.assertNotIn("all is well", output)
        self.assertFalse((self.folder / "installed").exists())

    def test_what_cannot_be_had_here_skips_the_part_with_its_reason(self):
        self.part("10-suite", 'purpose="it wants Python 2.7"\nneeds="autobahn"\nrun() {\n  echo ran\n}\n')
        self.environment["PYTHON27"] = "/nowhere/python2.7"
        code, output = self.run_test()
        self.assertEqual(code, 0)
        self.assertIn("!!!! suite did NOT run: the suite needs a Python 2.7", output)


class ListTest(unittest.TestCase):
    def setUp(self):
        listing = subprocess.run([REPOSITORY / "test", "--list"], capture_output=True, text=True, check=True).stdout
        self.parts = dict(line.split(maxsplit=1) for line in listing.splitlines())

    def test_every_part_has_a_purpose_and_only_needs_that_can_be_installed(self):
        for part, purpose in self.parts.items():
            with self.subTest(part=part):
                self.assertGreater(len(purpose), 10)
                known = subprocess.run([REPOSITORY / "interop/install", "--check", "--for", part], capture_output=True, text=True)
                self.assertNotIn("there is no", known.stderr)

    def test_the_table_of_contributing_md_has_all_parts_in_their_order(self):
        table = re.findall(r"^\| `([a-z]+)` \|", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.MULTILINE)
        self.assertEqual(table, list(self.parts))


if __name__ == "__main__":
    unittest.main()
