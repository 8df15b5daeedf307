// Command site renders the documents of the project into static files with a search,
// which need no server and fetch nothing:
//
//	go -C tools/site run . -root ../.. -out ../../build/site
//
// Pages keep their places, so that links between them stay; files that they link are
// copied along.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root := flag.String("root", "../..", "folder of the project")
	out := flag.String("out", "../../build/site", "folder of the site; it is emptied")
	flag.Parse()
	if err := write(*root, *out); err != nil {
		fmt.Fprintln(os.Stderr, "site:", err)
		os.Exit(1)
	}
	fmt.Println(filepath.Join(*out, "index.html"))
}

// write makes the whole site.
func write(root, out string) error {
	s, err := read(root)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	for _, p := range s.pages {
		if err := s.render(p, out); err != nil {
			return fmt.Errorf("%s: %w", p.source, err)
		}
	}
	return s.rest(out)
}
