package jwt

import (
	"math"
	"strconv"
	"time"
)

// maxDate is 2^53: from there on, float64 has no odd numbers.
const maxDate = 1 << 53

// NumericDate reads a date (RFC 7519, section 2): a JSON number of seconds since
// 1970, with or without a fraction, at least 0 and below 2^53. It returns false
// for a missing value, a value that is not a number, and a number out of range.
//
// value is the text of a JSON value that is valid. For other text, such as a
// flag of a command, the caller checks the alphabet first: NumericDate accepts
// "007" and "1.", which JSON does not, and refuses ".5".
func NumericDate(value string) (t time.Time, ok bool) {
	if len(value) <= 15 {
		var s int64
		plain := true
		for i := range len(value) {
			d := value[i] - '0'
			if d > 9 {
				plain = false
				break
			}
			s = 10*s + int64(d)
		}
		if plain {
			return time.Unix(s, 0), value != ""
		}
	}
	if c := value[0]; c != '-' && (c < '0' || c > '9') {
		return time.Time{}, false
	}
	f, err := strconv.ParseFloat(value, 64)
	if err != nil || f < 0 || f >= maxDate {
		return time.Time{}, false
	}
	whole, frac := math.Modf(f)
	return time.Unix(int64(whole), int64(frac*1e9)), true
}
