"""A path's requests find their handler however the path is written; everybody else is a stray."""

from tracefwd.doorways import Answer
from tracefwd.receiver.handler import ZIPKIN_FORM, Handlers, zipkin_handler
from tracefwd.receiver.otlp_answers import form_of


def test_a_handler_is_found_by_the_decoded_path() -> None:
    here = zipkin_handler(lambda *_: Answer(202))
    handlers = Handlers({b"/a b": here})
    for target in (b"/a b", b"/a%20b?x=1", b"http://host/a%20b#top"):
        assert handlers.find(target) is here
    assert handlers.find(b"/other") is None
    assert b"/a b" in handlers
    assert b"/other" not in handlers
    assert handlers.stray("") is ZIPKIN_FORM


def test_a_port_may_take_requests_everywhere() -> None:
    here = zipkin_handler(lambda *_: Answer(202))
    handlers = Handlers({}, everywhere=here)
    assert handlers.find(b"/anything") is here
    assert b"/anything" in handlers


def test_otlps_form_is_the_requests_encoding_and_protobuf_where_that_is_not_said() -> None:
    assert form_of("Application/JSON; charset=utf-8") is not form_of("")
    assert form_of("") is form_of("application/x-protobuf")
