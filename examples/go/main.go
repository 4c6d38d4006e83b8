// The post's Go app: a few routes worth watching, and its own metrics on /metrics.
//
//	./app --port 8081
//
// The post's label is called "other-label", which client_golang of before 1.21 refuses at start ("is not a valid label
// name"): here it is other_label, which every version takes.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	sleepMillisecondsMax = 2000
	bodyBytesMax         = 1 << 20
)

var someEvents = prometheus.NewCounterVec(prometheus.CounterOpts{
	Subsystem: "someEvent",
	Name:      "count",
	Help:      "Events by their type.",
}, []string{"label", "other_label"})

// hello counts an event. Its label is one of a known few: what a stranger writes into a path must not become series.
func hello(w http.ResponseWriter, r *http.Request) {
	event := strings.TrimPrefix(r.URL.Path, "/hello/")
	if event != "signup" && event != "login" {
		event = "other"
	}
	someEvents.With(prometheus.Labels{"label": event, "other_label": r.Method}).Inc()
	fmt.Fprintf(w, "%s: you have been recorded.\n", event)
}

// slow sleeps `ms` milliseconds (at most 2000), by chance if not said.
func slow(w http.ResponseWriter, r *http.Request) {
	milliseconds, err := strconv.Atoi(r.URL.Query().Get("ms"))
	if err != nil || milliseconds < 0 {
		milliseconds = 60 + rand.Intn(340)
	}
	if milliseconds > sleepMillisecondsMax {
		milliseconds = sleepMillisecondsMax
	}
	time.Sleep(time.Duration(milliseconds) * time.Millisecond)
	fmt.Fprintf(w, "slept %d ms\n", milliseconds)
}

func orders(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "send an order with POST", http.StatusMethodNotAllowed)
		return
	}
	count, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, bodyBytesMax))
	if err != nil {
		http.Error(w, "an order is at most 1 MiB", http.StatusRequestEntityTooLarge)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, "{\"bytes\": %d}\n", count)
}

func index(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	fmt.Fprintln(w, "Hello, World!")
}

func broken(w http.ResponseWriter, r *http.Request) {
	http.Error(w, "this route always fails", http.StatusInternalServerError)
}

func main() {
	host := flag.String("host", "127.0.0.1", "address to listen on")
	port := flag.Int("port", 8081, "port to listen on")
	flag.Parse()
	rand.Seed(time.Now().UnixNano())
	prometheus.MustRegister(someEvents)
	http.Handle("/metrics", promhttp.Handler())
	http.HandleFunc("/", index)
	http.HandleFunc("/hello/", hello)
	http.HandleFunc("/slow", slow)
	http.HandleFunc("/orders", orders)
	http.HandleFunc("/broken", broken)
	log.Fatal(http.ListenAndServe(fmt.Sprintf("%s:%d", *host, *port), nil))
}
