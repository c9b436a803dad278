import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from tests.bench.driver import Answers, Driver, Request

ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
REQUEST = Request(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n[]", 5)
Answering = Callable[[int], bytes | None]


@contextmanager
def server(answer: Answering) -> Iterator[int]:
    """Answers the n-th request of all with ``answer(n)``, and with None by hanging up."""
    numbers = count(1)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.read(len(REQUEST.data)):
                data = answer(next(numbers))
                if data is None:
                    return
                self.wfile.write(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield listening.server_address[1]
        finally:
            listening.shutdown()
            thread.join()


def drive(answer: Answering, load: Callable[[Driver], Answers]) -> Answers:
    with server(answer) as port:
        driver = Driver(port, [[REQUEST]] * 4)
        try:
            return load(driver)
        finally:
            driver.close()


def test_a_closed_loop_counts_what_was_acknowledged() -> None:
    found = drive(lambda _: ACCEPTED, lambda driver: driver.closed(0.1))
    assert found.acked == found.sent == 5 * found.posts > 0
    assert len(found.latencies_s) == len(found.times_s) == found.posts
    assert (found.not_202, found.unanswered) == (0, 0)


def test_an_open_loop_keeps_its_rate() -> None:
    found = drive(lambda _: ACCEPTED, lambda driver: driver.open(1_000, 0.3))
    # The first post is due at once, and the last one's time is just short of the end.
    assert 55 <= found.posts <= 61
    assert found.acked == found.sent


def test_an_open_loop_sends_what_was_due_however_late() -> None:
    open_again = threading.Event()

    def answer(_: int) -> bytes:
        open_again.wait()
        return ACCEPTED

    threading.Timer(0.15, open_again.set).start()
    found = drive(answer, lambda driver: driver.open(1_000, 0.1))
    # Times are added up in floating point: one more may be due just before the end.
    assert found.posts in (20, 21)
    assert found.acked == found.sent == 5 * found.posts
    assert max(found.latencies_s) >= 0.1


def test_refusals_and_hang_ups_are_told_apart_and_the_load_goes_on() -> None:
    refused = b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy"

    def answer(number: int) -> bytes | None:
        return {2: refused, 4: None}.get(number, ACCEPTED)

    found = drive(answer, lambda driver: driver.closed(0.1))
    assert (found.not_202, found.unanswered) == (1, 1)
    assert found.acked == found.sent - 10
    assert found.posts > 8


def test_an_answer_may_have_a_date_and_come_in_parts() -> None:
    def answer(number: int) -> bytes:
        return b"HTTP/1.1 202 Accepted\r\ndate: %d\r\ncontent-length: 2\r\n\r\nok" % number

    found = drive(answer, lambda driver: driver.closed(0.05))
    assert found.acked == found.sent > 0
