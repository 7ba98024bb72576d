"""Completions in real shells, and manual pages read by a real formatter."""

import pathlib
import subprocess
import tempfile
import unittest

from harness import TAUT, environment, run


class Shells(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.home = pathlib.Path(folder.name)

    def test_bash_completes_the_command(self):
        script = f"""
            taut() {{ "{TAUT}" "$@"; }}
            source <(taut completions bash)
            complete -p taut
            COMP_WORDS=(taut pub) COMP_CWORD=1
            _taut taut pub taut
            echo "${{COMPREPLY[@]}}"
            COMP_WORDS=(taut channels --us) COMP_CWORD=2
            _taut taut --us channels
            echo "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(["bash", "-c", script], env=environment(self.home), capture_output=True, text=True, check=True)
        lines = done.stdout.splitlines()
        self.assertRegex(lines[0], r"^complete .*_taut.* taut$")
        self.assertEqual(lines[1:], ["publish", "--users"], done.stderr)

    def test_zsh_accepts_its_completions(self):
        (self.home / "_taut").write_bytes(subprocess.run([TAUT, "completions", "zsh"], check=True, capture_output=True).stdout)
        script = "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; whence -v _taut; print $_comps[taut]"
        done = subprocess.run(
            ["zsh", "-f", "-c", script], env=environment(self.home), cwd=self.home, capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stderr, "")
        self.assertEqual(done.stdout.splitlines()[-1], "_taut")
        subprocess.run(["zsh", "-n", self.home / "_taut"], check=True)

    def test_the_manual_pages_are_good_roff(self):
        folder = self.home / "man"
        self.assertEqual(run(self.home, "man", "--out", str(folder))[0], 0)
        pages = sorted(folder.glob("*.1"))
        self.assertIn("taut-route-test.1", [page.name for page in pages])
        for page in pages:
            command = ["groff", "-man", "-Tutf8", "-ww", "-rLL=100n", "-P-cbou", str(page)]
            shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(self.home))
            self.assertEqual(shown.stderr, "", page.name)
            self.assertIn("EXIT STATUS", shown.stdout, page.name)
        shown = subprocess.run(["groff", "-man", "-Tutf8", "-P-cbou", str(folder / "taut-publish.1")], capture_output=True, text=True)
        self.assertIn("taut publish news headline '{\"title\":\"It works\"}'", shown.stdout)
        out = run(self.home, "man", "route", "test")[1]
        self.assertEqual(out.decode(), (folder / "taut-route-test.1").read_text())
        self.assertEqual(run(self.home, "man", "nothing")[0], 64)


if __name__ == "__main__":
    unittest.main()
