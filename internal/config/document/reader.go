package document

import "fmt"

// Reader reads one document and collects what is wrong with it.
type Reader struct {
	path        string
	src         *source
	errs, warns problems
}

// NewReader returns a reader of the content of the file at path, which problems name.
func NewReader(path string, data []byte) *Reader {
	return &Reader{path: path, src: newSource(data)}
}

// Root returns the object that the document is. It returns nil when it is none, and
// has reported why: a fault of the grammar is then the only error.
func (r *Reader) Root() *Object {
	root, bad := r.src.parse(func(off int, path, key string) {
		r.Errorf(off, Join(path, key), "the key appears twice in one object; remove one")
	})
	if bad != nil {
		r.errs = problems{}
		r.Errorf(bad.off, "", "%s", bad.text)
		return nil
	}
	return r.Object(&root, "")
}

// Position returns line and column of an offset, both from 1, the column in characters.
func (r *Reader) Position(off int) (line, column int) { return r.src.position(off) }

func (r *Reader) problem(off int, key, format string, args []any) Problem {
	line, column := r.Position(off)
	return Problem{File: r.path, Line: line, Column: column, Key: key, Text: fmt.Sprintf(format, args...)}
}

// Errorf reports an error about what stands at the offset. key is its whole path.
func (r *Reader) Errorf(off int, key, format string, args ...any) {
	r.errs.add(func() Problem { return r.problem(off, key, format, args) })
}

// ErrorAt reports an error at a place that Position has told.
func (r *Reader) ErrorAt(line, column int, key, text string) {
	r.errs.add(func() Problem { return Problem{File: r.path, Line: line, Column: column, Key: key, Text: text} })
}

// Warnf reports something that does not keep the document from being used.
func (r *Reader) Warnf(off int, key, format string, args ...any) {
	r.warns.add(func() Problem { return r.problem(off, key, format, args) })
}

// Wrong reports a value of the wrong type without quoting it.
func (r *Reader) Wrong(n *Value, key, what string) {
	r.Errorf(n.Off, key, "expected %s, got %s", what, n.Kind)
}

// Result returns the warnings, and as an error of type Errors all errors, both in the
// order of the document. The error is nil when there is none.
func (r *Reader) Result() ([]Problem, error) {
	warnings := r.warns.sorted("warnings")
	if len(r.errs.list) > 0 {
		return warnings, Errors(r.errs.sorted("errors"))
	}
	return warnings, nil
}
