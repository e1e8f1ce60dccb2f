"""A log's descriptor on a disk that is full: lines are whole in the end, or lost."""

import os
import resource
import signal

from forks import forked

from mooring.logs.sink import Sink

LINE = b"0123456\n"


def on_a_small_disk(path, work):
    """Run `work(sink, grow)` in a process that may write 12 bytes to a file, until it calls `grow`."""

    def small():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        resource.setrlimit(resource.RLIMIT_FSIZE, (12, resource.RLIM_INFINITY))
        most = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        work(Sink(fd), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, most))

    with forked(small) as pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return path.read_bytes()


def test_a_record_that_was_cut_off_is_finished_before_the_next(tmp_path):
    def work(sink, grow):
        assert sink.write(LINE)
        assert sink.write(b"second\nand third\n")  # its beginning is there
        assert not sink.write(b"lost\n")
        grow()
        assert sink.write(b"last\n")

    assert on_a_small_disk(tmp_path / "log", work) == LINE + b"second\nand third\n" + b"last\n"


def test_it_is_not_finished_after_what_another_has_written(tmp_path):
    path = tmp_path / "log"

    def work(sink, grow):
        assert sink.write(LINE)
        assert sink.write(b"second\n")
        grow()
        os.write(sink.fd, b"another's\n")
        assert sink.write(b"last\n")

    assert on_a_small_disk(path, work) == LINE + b"seco" + b"another's\n" + b"last\n"


def test_a_fork_does_not_finish_it_too(tmp_path):
    def work(sink, grow):
        assert sink.write(LINE)
        assert sink.write(b"second\n")
        grow()
        pid = os.fork()
        if not pid:
            sink.write(b"child\n")
            os._exit(0)
        os.waitpid(pid, 0)
        assert sink.write(b"last\n")

    assert on_a_small_disk(tmp_path / "log", work) == LINE + b"seco\n" + b"child\n" + b"last\n"
