package cli

import "testing"

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 1_234_567: "1.2 MB", 999_949: "999.9 kB", 999_960: "1.0 MB", 5_000_000_000: "5.0 GB", 7_000_000_000_000_000: "7000.0 TB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
