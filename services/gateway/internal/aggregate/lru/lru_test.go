package lru

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

func TestACacheNeverHoldsMoreThanItsBound(t *testing.T) {
	t.Parallel()
	c := New[int](10*shards, 0)
	for i := range 10_000 {
		c.Put(fmt.Sprint(i), i, 3)
	}
	if got, most := c.Len(), shards*10/3; got > most {
		t.Errorf("Len() = %d, want at most %d", got, most)
	}
	if c.Put("large", 1, 11); c.Len() > shards*10/3 {
		t.Error("a value larger than a shard was kept")
	}
	if _, ok := c.Get("large"); ok {
		t.Error("a value larger than a shard is found")
	}
}

func TestWhatIsUsedStaysWhatIsNotGoes(t *testing.T) {
	t.Parallel()
	c := New[string](2*shards, 0)
	same := sameShard(c, 3)
	c.Put(same[0], "a", 1)
	c.Put(same[1], "b", 1)
	if _, ok := c.Get(same[0]); !ok {
		t.Fatal("the first value is gone before the shard is full")
	}
	c.Put(same[2], "c", 1)
	if _, ok := c.Get(same[1]); ok {
		t.Error("the value that was not used is still there")
	}
	for _, key := range []string{same[0], same[2]} {
		if _, ok := c.Get(key); !ok {
			t.Errorf("the value of %q is gone although it was used", key)
		}
	}
}

func TestAValueIsForgottenWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	c := New[int](100*shards, time.Minute)
	c.now = func() time.Time { return now }
	c.Put("k", 1, 1)
	now = now.Add(time.Minute)
	if _, ok := c.Get("k"); !ok {
		t.Error("the value is gone within its time")
	}
	now = now.Add(time.Second)
	if got, loaded := c.GetOrPut("k", 2, 1); loaded || got != 2 {
		t.Errorf("GetOrPut() = %d, %v after its time, want the new value", got, loaded)
	}
	now = now.Add(2 * time.Minute)
	if _, ok := c.Get("k"); ok {
		t.Error("the value is there after its time")
	}
	if c.Len() != 0 {
		t.Errorf("Len() = %d, want 0", c.Len())
	}
}

func TestConcurrentCallersGetOneValue(t *testing.T) {
	t.Parallel()
	c := New[int](100*shards, 0)
	var wg sync.WaitGroup
	got := make([]int, 16)
	for i := range got {
		wg.Go(func() {
			got[i], _ = c.GetOrPut("k", i, 1)
			c.Put(fmt.Sprint("other", i), i, 1)
			c.Delete(fmt.Sprint("other", i))
		})
	}
	wg.Wait()
	for i := range got {
		if got[i] != got[0] {
			t.Fatalf("callers got %v, want one value", got)
		}
	}
	if c.Len() != 1 {
		t.Errorf("Len() = %d, want 1", c.Len())
	}
}

// sameShard returns n keys of one shard.
func sameShard(c *Cache[string], n int) []string {
	var keys []string
	for i := 0; len(keys) < n; i++ {
		if key := fmt.Sprint(i); c.shard(key) == &c.shards[0] {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestASmallCacheStillHoldsALargeValue(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 100, 250, 100_000} {
		c := NewLarge[int](size, 100, 0)
		c.Put("large", 1, 100)
		if _, ok := c.Get("large"); ok != (size >= 100) {
			t.Errorf("a cache of %d holds a value of 100: %v", size, ok)
		}
		for i := range 1000 {
			c.Put(fmt.Sprint(i), i, 100)
		}
		if got := c.Len() * 100; got > size {
			t.Errorf("a cache of %d holds %d", size, got)
		}
	}
}
