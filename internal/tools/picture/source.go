package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// source is what the picture shows of the code. Packages are named by their folder
// below internal.
type source struct {
	imports   map[string][]string // of each package, sorted
	functions map[string]bool     // "package Function" or "package Type.Method"
}

// readSource parses the Go files of internal, tests left out.
func readSource(root string) (*source, error) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(string(mod), "\n")
	prefix := strings.TrimSpace(strings.TrimPrefix(line, "module")) + "/internal/"
	s := &source{imports: make(map[string][]string), functions: make(map[string]bool)}
	internal := filepath.Join(root, "internal")
	err = filepath.WalkDir(internal, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "tools"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		dir, err := filepath.Rel(internal, filepath.Dir(path))
		if err != nil {
			return err
		}
		return s.add(filepath.ToSlash(dir), path, prefix)
	})
	return s, err
}

// add notes the imports and functions of one file.
func (s *source) add(pkg, path, prefix string) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	own := s.imports[pkg]
	for _, i := range file.Imports {
		name, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return err
		}
		if name, ok := strings.CutPrefix(name, prefix); ok && !slices.Contains(own, name) {
			own = append(own, name)
		}
	}
	slices.Sort(own)
	s.imports[pkg] = own
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := f.Name.Name
		if f.Recv != nil {
			t := f.Recv.List[0].Type
			if star, ok := t.(*ast.StarExpr); ok {
				t = star.X
			}
			name = fmt.Sprint(t) + "." + name
		}
		s.functions[pkg+" "+name] = true
	}
	return nil
}

// layers sorts the packages that the server is made of: all that app imports, by the
// length of the longest way down. The last layer imports nothing.
func (s *source) layers(top string) [][]string {
	height := make(map[string]int)
	var measure func(pkg string) int
	measure = func(pkg string) int {
		if h, known := height[pkg]; known {
			return h
		}
		h := 0
		for _, i := range s.imports[pkg] {
			h = max(h, 1+measure(i))
		}
		height[pkg] = h
		return h
	}
	out := make([][]string, measure(top)+1)
	for pkg, h := range height {
		row := len(out) - 1 - h
		out[row] = append(out[row], pkg)
	}
	for _, row := range out {
		slices.Sort(row)
	}
	return out
}

// between tells how two packages that follow each other on a way know each other.
func (s *source) between(a, b string) (string, error) {
	if a == b {
		return "", nil
	}
	if slices.Contains(s.imports[a], b) {
		return "calls", nil
	}
	if slices.Contains(s.imports[b], a) {
		return "is used by", nil
	}
	for _, common := range []string{"link", "module"} { // packages of interfaces
		if slices.Contains(s.imports[a], common) && slices.Contains(s.imports[b], common) {
			return "knows only the interface in " + common, nil
		}
	}
	return "", fmt.Errorf("%s and %s follow each other on a way and have nothing to do with each other", a, b)
}
