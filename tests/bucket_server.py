"""A stand-in for Google Cloud Storage with generations, which TensorStore asks for and the emulator leaves out.

python tests/bucket_server.py start --host=127.0.0.1 --port=9000 --in-memory --default-bucket=bucket
"""

import functools
import threading
from http import HTTPStatus

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

_one_at_a_time = threading.RLock()


def generation_of(request, storage) -> str:
    """ "0" where there is no such object."""
    name = request.params.get("object_id") or request.query.get("name", [""])[0]
    try:
        return storage.get_file_obj(request.params["bucket_name"], name)["generation"]
    except NotFound:
        return "0"


def with_generations(handler):
    """The conditions of a request are checked, and its answer tells the object's generation."""

    @functools.wraps(handler)
    def answer(request, response, storage, *args, **kwargs):
        with _one_at_a_time:
            now = generation_of(request, storage)
            if request.query.get("ifGenerationMatch", [now])[0] != now:
                response.status = HTTPStatus.PRECONDITION_FAILED
            elif request.query.get("ifGenerationNotMatch", [""])[0] == now:
                response.status = HTTPStatus.NOT_MODIFIED
            else:
                handler(request, response, storage, *args, **kwargs)
                response["x-goog-generation"] = generation_of(request, storage)

    return answer


for name in ("get", "download", "insert", "delete"):
    setattr(objects, name, with_generations(getattr(objects, name)))

if __name__ == "__main__":
    from gcp_storage_emulator.__main__ import main  # takes the handlers as they are by now

    main()
