import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from worker.process.scratch import Scratch


def test_a_folder_is_private_and_removed(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "root")
    with scratch.folder("job") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "file").write_bytes(b"x")
    assert not folder.exists()
    scratch.close()
    assert list((tmp_path / "root").glob("worker-*")) == []


def test_a_folder_is_removed_after_an_error(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    with pytest.raises(ZeroDivisionError), scratch.folder("job") as folder:
        raise ZeroDivisionError
    assert not folder.exists()
    scratch.close()


def test_the_folder_of_a_dead_worker_is_removed_and_that_of_a_live_one_is_not(tmp_path: Path) -> None:
    program = f"""
import pathlib, time
from worker.process.scratch import Scratch
scratch = Scratch(pathlib.Path({str(tmp_path)!r}))
(scratch.path / "job-1").mkdir()
print(scratch.path, flush=True)
time.sleep(60)
"""
    worker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    with worker.stdout:
        other = Path(worker.stdout.readline().strip())
    mine = Scratch(tmp_path)
    assert (other / "job-1").exists()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    third = Scratch(tmp_path)
    assert not other.exists()
    assert mine.path.exists()
    mine.close()
    third.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_root_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(PermissionError, match="NAYER_SCRATCH_DIR"):
        Scratch(tmp_path)
    os.chown(tmp_path, 0, 0)


def test_a_link_in_place_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        Scratch(tmp_path / "root")
