// Package document reads JSON that people write: every value knows where it stands,
// every problem names file, line, column and key, and all problems are told at once.
// It knows no key of the server and opens no file.
//
// A Reader is made of the content of a file. Root returns the object that the file
// holds; an Object returns the values of its keys, each with the type that is expected,
// and reports what has another one. What an Object was not asked for is an unknown key,
// of which Finish warns. Result returns all problems, at most 1000 of each sort.
//
// Nothing here quotes strings of the document, because any of them may be a secret;
// numbers are quoted. Objects that are written keep the order of their keys: Ordered.
//
// A Reader and its objects belong to one goroutine.
package document
