"""The doctor names each problem with its fix, survives what it probes, and its exit status is the verdict."""

import sys

import pytest

from pipeline import doctor
from pipeline.doctor import Probe, check_packages, check_python, probe_python
from pipeline.doctor_fixes import Check, library_fix


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        ("OSError: libusb-1.0.so.0: cannot open shared object file: No such file", "libusb-1.0-0"),
        ("ImportError: libGL.so.1: cannot open shared object file: No such file or directory", "libgl1"),
        ("OSError: libX11.so.6: cannot open shared object file: No such file or directory", "libx11-6"),
        ("OSError: libgomp.so.1: cannot open shared object file: No such file or directory", "libgomp1"),
        ("ImportError: libgthread-2.0.so.0: cannot open shared object file: No such", "libglib2.0-0"),
        ("ImportError: libc++abi.so.1: cannot open shared object file: No such file", "libc++abi1"),
        ("ImportError: libEGL.so.1: cannot open shared object file: No such file", "libegl1"),
    ],
)
def test_a_missing_library_leads_to_the_package_that_brings_it(error, fix):
    assert library_fix(error) == f"apt-get install {fix}"


def test_an_unknown_library_is_named_and_other_errors_are_not_guessed_at():
    unknown = "ImportError: libfoo-2.so.1: cannot open shared object file: No such file"
    assert library_fix(unknown) == "install the package that holds libfoo-2.so"
    assert library_fix("ValueError: libGL is sad") == ""


@pytest.mark.parametrize(
    ("code", "probe"),
    [
        ("print('noise'); print('answer')", Probe("answer", "")),
        ("pass", Probe("", "")),
        ("raise ValueError('no good')", Probe("", "ValueError: no good")),
        ("import sys; sys.exit('wrong picture')", Probe("", "wrong picture")),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            Probe("", "the process was killed by signal 11"),
        ),
        ("import sys; sys.exit(3)", Probe("", "exit status 3")),
    ],
)
def test_a_probe_reports_answers_errors_and_crashes(code, probe):
    assert probe_python(code) == probe


def test_a_probe_that_hangs_is_given_up():
    assert probe_python("import time; time.sleep(60)", timeout_s=0.5).problem == "no answer within 0 s"


def test_a_picture_goes_only_where_one_can_be_written(tmp_path, capsys):
    for name in ("missing/x.png", "x.jpg"):
        with pytest.raises(SystemExit) as stop:
            doctor.main(["--picture", str(tmp_path / name)])
        assert stop.value.code == 2
        assert "expected a name that ends in .png in a folder that exists" in capsys.readouterr().err


def test_broken_and_missing_packages_are_named():
    (row,) = check_packages(("json",), ("xml",))
    assert row.state == "ok"
    broken, absent = check_packages(("no_such_package_a",), ("no_such_package_b", "xml"))
    assert (broken.name, absent.name) == ("no_such_package_a", "no_such_package_b")
    assert broken.state == absent.state == "failed"
    assert "ModuleNotFoundError" in broken.result
    assert absent.fix == f"{sys.executable} -m pip install -r requirements.txt"


def test_an_old_python_is_refused():
    assert check_python((3, 9, 1)) == Check(
        "Python", "failed", "3.9.1, expected 3.10 or newer", check_python((3, 9)).fix
    )
    assert check_python((3, 10, 0)).state == "ok"


def test_a_full_disk_is_refused(tmp_path):
    assert doctor.check_disk(tmp_path, min_free_gb=0.0).state == "ok"
    assert doctor.check_disk(tmp_path, min_free_gb=1e9).state == "failed"


def test_exit_status_and_last_line_are_the_verdict(monkeypatch, capsys):
    fine, lacking = Check("A", "ok", "good"), Check("B", "optional", "absent", "get b")
    bad = Check("C", "failed", "libX [broken]", "apt-get install c")
    monkeypatch.setattr(doctor, "run_checks", lambda picture: [fine, lacking])
    assert doctor.main([]) == 0
    shown = capsys.readouterr().out
    assert "good" in shown
    assert shown.splitlines()[-1] == "This machine is ready. Without: B."
    assert doctor.main(["--quiet"]) == 0
    assert capsys.readouterr().out.splitlines() == ["This machine is ready. Without: B."]
    monkeypatch.setattr(doctor, "run_checks", lambda picture: [fine, lacking, bad])
    assert doctor.main(["--quiet"]) == 1
    shown = capsys.readouterr().out
    assert "libX [broken]" in shown
    assert "apt-get install c" in shown
    assert "good" not in shown
    assert shown.splitlines()[-1].startswith("Not ready: C.")


def test_unknown_and_abbreviated_options_are_usage_errors(capsys):
    for arguments in (["--qui"], ["--verbose"], ["x"]):
        with pytest.raises(SystemExit) as stop:
            doctor.main(arguments)
        assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err
