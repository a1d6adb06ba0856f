"""Messages outside a queue: as a pair of files, to be moved to another one, or looked at and brought back.

A pair is ``ID.eml``, the octets just as they were accepted, and ``ID.json``, everything else that the queue knows of
the message. Its one rule: a pair whose ``.json`` is there is whole, and a message is at every moment in the queue, in a
pair or in both: whatever dies when, it is not lost.
"""

from smtprecv.moving._export import Departure, Exported, export_message
from smtprecv.moving._import import Arrival, Imported, import_message, pairs_in

__all__ = ["Arrival", "Departure", "Exported", "Imported", "export_message", "import_message", "pairs_in"]
