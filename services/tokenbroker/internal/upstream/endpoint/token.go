package endpoint

const maxTokenLength = 16 << 10

// TokenText reports whether s can be a token of an answer: visible ASCII of bounded
// length (RFC 6749, appendix A.12, without the space). It will be put into a header.
func TokenText(s string) bool {
	if s == "" || len(s) > maxTokenLength {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
