package httpapi

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
)

// checkText refuses valid JSON that other readers of the API cannot parse. The C++
// module libraries throw on one such message and get none of those behind it.
func checkText(text []byte) error {
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"':
			end, err := checkString(text, i+1)
			if err != nil {
				return err
			}
			i = end
		case c == '-' || c >= '0' && c <= '9':
			end := i + 1
			for end < len(text) && isNumberByte(text[end]) {
				end++
			}
			if _, err := strconv.ParseFloat(string(text[i:end]), 64); err != nil {
				return fmt.Errorf("contains the number %s, which is beyond the range of a double; readers of the API cannot parse it", strings.Trim(Quote(string(text[i:end])), `"`))
			}
			i = end
		default:
			i++
		}
	}
	return nil
}

func isNumberByte(c byte) bool {
	return c >= '0' && c <= '9' || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-'
}

// checkString looks at the string whose content begins at i, returns where what follows
// it begins and refuses a lone surrogate: half of a character beyond U+FFFF.
func checkString(text []byte, i int) (end int, err error) {
	for i < len(text) && text[i] != '"' {
		if text[i] != '\\' {
			i++
			continue
		}
		r := escaped(text, i)
		switch {
		case r < 0:
			i += 2
		case !utf16.IsSurrogate(r):
			i += 6
		case utf16.DecodeRune(r, escaped(text, i+6)) == '\uFFFD':
			return 0, fmt.Errorf("contains the lone surrogate \\u%04x; write characters beyond U+FFFF as themselves or as two surrogates", r)
		default:
			i += 12
		}
	}
	return i + 1, nil
}

// escaped returns the code unit of the escape \uXXXX at i, -1 if there is none.
func escaped(text []byte, i int) rune {
	if i+6 > len(text) || text[i] != '\\' || text[i+1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(text[i+2:i+6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}
