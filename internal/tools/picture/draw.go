package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const width = 100 // columns of the picture

// draw returns the picture: the layers, then the ways.
func draw(s *source) (string, error) {
	var b strings.Builder
	on := make(map[string]bool)
	for _, w := range ways() {
		for _, st := range w.steps {
			on[st.pkg] = true
		}
	}
	b.WriteString("THE PACKAGES   each knows only what is below it; [in brackets]: on one of the ways below\n\n")
	for n, row := range s.layers("app") {
		var cells []string
		for _, pkg := range row {
			if on[pkg] {
				pkg = "[" + pkg + "]"
			}
			cells = append(cells, pkg)
		}
		for i, line := range wrap(cells, width-6) {
			label := "     "
			if i == 0 {
				label = fmt.Sprintf("%3d  ", n+1)
			}
			b.WriteString(label + line + "\n")
		}
	}
	for _, w := range ways() {
		b.WriteString("\n" + w.title + "\n\n")
		if err := drawWay(&b, s, w); err != nil {
			return "", fmt.Errorf("%s: %w", w.title, err)
		}
	}
	return b.String(), nil
}

func drawWay(b *strings.Builder, s *source, w way) error {
	previous := ""
	number := 0
	for i, st := range w.steps {
		if st.pkg == "" {
			if i > 0 {
				b.WriteString("      │\n")
			}
			b.WriteString("   ───┤ " + st.does + "\n")
			previous = ""
			continue
		}
		if !s.functions[st.pkg+" "+st.function] {
			return fmt.Errorf("there is no function %s in internal/%s", st.function, st.pkg)
		}
		if previous != "" && previous != st.pkg {
			how, err := s.between(previous, st.pkg)
			if err != nil {
				return err
			}
			arrow := "      ▼"
			if strings.HasPrefix(how, "knows only") {
				arrow += "  " + how
			}
			b.WriteString(arrow + "\n")
		} else if previous == "" {
			b.WriteString("      ▼\n")
		}
		number++
		b.WriteString(strings.TrimRight(fmt.Sprintf("  %2d  %s%s%s", number, pad(st.pkg, 13), pad(st.function, 24), st.does), " ") + "\n")
		previous = st.pkg
	}
	return nil
}

func pad(s string, n int) string {
	return s + strings.Repeat(" ", max(1, n-utf8.RuneCountInString(s)))
}

// wrap joins cells to lines of limited length.
func wrap(cells []string, limit int) []string {
	var lines []string
	for _, c := range cells {
		last := len(lines) - 1
		if last >= 0 && len(lines[last])+3+len(c) <= limit {
			lines[last] += " · " + c
			continue
		}
		lines = append(lines, c)
	}
	return slices.Clip(lines)
}
