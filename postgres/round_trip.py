"""One round trip to PostgreSQL: a prelude and a statement in one pipeline, which is one implicit transaction.

It uses psycopg's wrapper of libpq (PostgreSQL's manual, libpq, "Pipeline Mode"), because psycopg's cursors send and
await each part separately, which takes more than twice the time. This is the only module that knows psycopg's pipeline
and its adaptation of values.
"""

from collections.abc import Sequence
from typing import Any, Final

from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGresult

Row = dict[str, Any]
RESULTS: Final = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)


class RoundTrip:
    """A prelude and a statement in flight, with parameters $1, $2 ...; raises psycopg.Error if the connection fails."""

    def __init__(
        self, connection: Any, prelude: bytes, scope: Sequence[str], query: bytes, values: Sequence[Any]
    ) -> None:
        self.connection = connection
        self._pgconn = connection.pgconn
        self._transformer = Transformer(connection)
        self._results: list[PGresult] = []
        parameters = self._transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        self._pgconn.enter_pipeline_mode()
        self._pgconn.send_query_params(prelude, [text.encode() for text in scope])
        self._pgconn.send_query_params(query, parameters, self._transformer.types, self._transformer.formats)
        self._pgconn.pipeline_sync()
        # Wait until it is readable, or writable while there is more to send.
        self.socket: int = self._pgconn.socket
        self.is_sending = self._pgconn.flush() == 1

    def proceed(self) -> bool:
        """Send and read without waiting; tell whether the round trip is over."""
        if self.is_sending:
            self.is_sending = self._pgconn.flush() == 1
        self._pgconn.consume_input()
        while not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is None:
                if self._pgconn.status != ConnStatus.OK:
                    return True
            elif result.status == ExecStatus.PIPELINE_SYNC:
                self._pgconn.exit_pipeline_mode()
                return True
            else:
                self._results.append(result)
        return False

    def rows(self) -> list[Row]:
        """Return the statement's rows. Raises psycopg.Error if either part failed."""
        for result in self._results:
            if result.status not in RESULTS:
                raise error_from_result(result)
        result = self._results[1]
        self._transformer.set_pgresult(result, set_loaders=True)
        names = [(result.fname(index) or b"").decode() for index in range(result.nfields)]
        return self._transformer.load_rows(0, result.ntuples, lambda values: dict(zip(names, values, strict=True)))


def is_idle(connection: Any) -> bool:
    """Tell whether no transaction and no pipeline is open on the connection."""
    pgconn = connection.pgconn
    return bool(pgconn.transaction_status == TransactionStatus.IDLE and pgconn.pipeline_status == PipelineStatus.OFF)


def is_active(connection: Any) -> bool:
    """Tell whether the connection runs a statement."""
    return bool(connection.pgconn.transaction_status == TransactionStatus.ACTIVE)


def server_encoding(connection: Any) -> str:
    """Return the encoding of the database, as PostgreSQL names it."""
    return (connection.pgconn.parameter_status(b"server_encoding") or b"unknown").decode()
