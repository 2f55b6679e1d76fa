// Command remotecache imports caches as BuildKit does and says what came of it.
//
// It reads one JSON question a line, passes it to a child process, and prints one JSON answer a
// line. A question whose import kills the child, as endless recursion does, is answered "crash";
// one that takes too long "hang". The child is started again for the next question.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"time"

	cacheimport "github.com/moby/buildkit/cache/remotecache/v1"
	"github.com/moby/buildkit/solver"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxStack = 32 << 20 // plenty for a chain of thousands of records, soon full when there is no end
	patience = 20 * time.Second
)

type question struct {
	Config json.RawMessage       `json:"config"`
	Layers []ocispecs.Descriptor `json:"layers"`
	// Times is how often to import: BuildKit iterates over maps, so one import may be lucky.
	Times int `json:"times"`
	// Return asks for what a re-export of the imported cache would write.
	Return bool `json:"return"`
}

type answer struct {
	Outcome string `json:"outcome"`
	Error   string `json:"error,omitempty"`
	// Records that the config has, and those that a re-export has.
	RecordsIn  int `json:"records_in"`
	RecordsOut int `json:"records_out"`
	// Found counts the records that the key storage reaches from results by back links.
	Found int `json:"found"`
	// Results counts the results that the key storage serves.
	Results int             `json:"results"`
	Config  json.RawMessage `json:"config,omitempty"`
}

// written is what this program needs to know of a config.
type written struct {
	Layers []struct {
		Blob   digest.Digest `json:"blob"`
		Parent int           `json:"parent"`
	} `json:"layers"`
	Records []struct {
		Results []struct {
			Layer int `json:"layer"`
		} `json:"layers"`
	} `json:"records"`
}

func main() {
	work := supervise
	if len(os.Args) == 2 && os.Args[1] == "child" {
		debug.SetMaxStack(maxStack)
		work = answerAll
	}
	if err := work(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// answerAll answers each line of in.
func answerAll(in io.Reader, out io.Writer) error {
	return eachLine(in, func(line []byte) error {
		return json.NewEncoder(out).Encode(reply(line))
	})
}

func reply(line []byte) answer {
	var q question
	if err := json.Unmarshal(line, &q); err != nil {
		return answer{Outcome: "error", Error: "question: " + err.Error()}
	}
	var a answer
	for range max(q.Times, 1) {
		var err error
		if a, err = importOnce(q); err != nil {
			return answer{Outcome: "error", Error: err.Error()}
		}
	}
	a.Outcome = "ok"
	return a
}

// importOnce does what contentCacheImporter.Resolve does, then looks at all that it got.
func importOnce(q question) (answer, error) {
	var a answer
	var w written
	if err := json.Unmarshal(q.Config, &w); err != nil {
		return a, err
	}
	layers := cacheimport.DescriptorProvider{}
	for _, l := range q.Layers {
		layers[l.Digest] = cacheimport.DescriptorProviderPair{Descriptor: l}
	}
	chains := cacheimport.NewCacheChains()
	if err := cacheimport.Parse(q.Config, layers, chains); err != nil {
		return a, err
	}
	keys, _, err := cacheimport.NewCacheKeyStorage(chains, nil)
	if err != nil {
		return a, err
	}
	a.RecordsIn = len(w.Records)
	if err := explore(keys, w, &a); err != nil {
		return a, err
	}
	config, _, err := chains.Marshal(context.Background())
	if err != nil {
		return a, err
	}
	a.RecordsOut = len(config.Records)
	if q.Return {
		a.Config, err = json.Marshal(config)
	}
	return a, err
}

// explore visits each record that has a result, and from there all that lead to it.
func explore(keys solver.CacheKeyStorage, w written, a *answer) error {
	visited := map[string]struct{}{}
	var queue []string
	push := func(id string) error {
		if _, ok := visited[id]; !ok {
			visited[id] = struct{}{}
			queue = append(queue, id)
		}
		return nil
	}
	for _, r := range w.Records {
		for _, res := range r.Results {
			if err := keys.WalkIDsByResult(resultID(w, res.Layer), push); err != nil {
				return err
			}
		}
	}
	for len(queue) > 0 {
		id := queue[0]
		queue = queue[1:]
		if err := keys.WalkResults(id, func(solver.CacheResult) error {
			a.Results++
			return nil
		}); err != nil {
			return err
		}
		if err := keys.WalkBacklinks(id, func(from string, _ solver.CacheInfoLink) error {
			return push(from)
		}); err != nil {
			return err
		}
	}
	a.Found = len(visited)
	return nil
}

// resultID is remoteID of BuildKit's cachestorage.go.
func resultID(w written, layer int) string {
	var chain []digest.Digest
	for i := layer; i != -1 && len(chain) <= len(w.Layers); i = w.Layers[i].Parent {
		chain = append(chain, w.Layers[i].Blob)
	}
	hash := digest.Canonical.Digester()
	for i := len(chain) - 1; i >= 0; i-- {
		hash.Hash().Write([]byte(chain[i]))
	}
	return hash.Digest().String()
}

// supervise answers each line of in by a child process.
func supervise(in io.Reader, out io.Writer) error {
	var c *child
	return eachLine(in, func(line []byte) error {
		if c == nil {
			var err error
			if c, err = start(); err != nil {
				return err
			}
		}
		text, outcome := c.ask(line)
		if outcome == "" {
			_, err := out.Write(text)
			return err
		}
		c.command.Process.Kill()
		c.command.Wait()
		c = nil
		return json.NewEncoder(out).Encode(answer{Outcome: outcome})
	})
}

type child struct {
	command *exec.Cmd
	in      io.Writer
	out     *bufio.Reader
}

func start() (*child, error) {
	command := exec.Command(os.Args[0], "child")
	in, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &child{command, in, bufio.NewReader(out)}, command.Start()
}

// ask returns the child's answer, or else what became of the child.
func (c *child) ask(line []byte) ([]byte, string) {
	timer := time.AfterFunc(patience, func() { c.command.Process.Kill() })
	defer timer.Stop()
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return nil, "crash"
	}
	text, err := c.out.ReadBytes('\n')
	if err == nil {
		return text, ""
	}
	if !timer.Stop() {
		return nil, "hang"
	}
	return nil, "crash"
}

func eachLine(in io.Reader, do func([]byte) error) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := do(line[:len(line)-1]); err != nil {
			return err
		}
	}
}
