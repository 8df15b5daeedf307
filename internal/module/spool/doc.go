// Package spool is a bounded queue on disk that survives the end of the process:
// records are appended, looked at in order, and acknowledged from the front.
//
// # On disk
//
// A spool is a directory with segment files NNNNNNNNNNNNNNNN.spool (hexadecimal,
// ascending) and a file named position. Segments are only appended to and are
// removed when everything in them was acknowledged. A record is a header of 16
// bytes (marker, length, CRC32C of the data, CRC32C of the header itself; little
// endian) and the data. The position file holds two slots written in turn, so
// that one of them is whole whatever happens; it is locked while the spool is
// open.
//
// # Promises
//
// Append has returned: the record is there after the process was killed. It is
// on the medium at the latest SyncInterval (1 s) later, which is what a loss of
// power can cost; syncing every record would cost every status a disk access.
// A record may be returned again after a restart although it was acknowledged,
// never the other way round: the queue delivers at least once.
//
// A cut off record at the end, as a crash leaves it, is cut away. A damaged
// record is skipped with a warning that names file and offset; the records after
// it are found by their markers. A file that is there and cannot be opened or read
// is no damage: Peek fails and nothing is skipped.
//
// The package imports nothing of the project.
package spool
