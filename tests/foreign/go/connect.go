package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Tells how to get in.
type security struct {
	CA, Certificate, Key, Mechanism, User, Password, Token string
}

// connect gets in as the environment says and writes a record, or says why not.
func connect(topic string) {
	var with security
	if err := json.Unmarshal([]byte(os.Getenv("FLEUVE_SECURITY")), &with); err != nil {
		panic(err)
	}
	client := newClient(append(with.options(), kgo.RecordRetries(0), kgo.RetryTimeout(2*time.Second), kgo.RequestRetries(1))...)
	defer client.Close()
	limited, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	err := client.Ping(limited)
	if err == nil {
		err = client.ProduceSync(limited, &kgo.Record{Topic: topic, Value: []byte("franz-go")}).FirstErr()
	}
	if err != nil {
		fmt.Printf("out %s\n", strings.Join(strings.Fields(err.Error()), " "))
		return
	}
	fmt.Println("in")
}

func (with security) options() []kgo.Opt {
	var options []kgo.Opt
	if with.CA != "" {
		pem, err := os.ReadFile(with.CA)
		if err != nil {
			panic(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		config := &tls.Config{RootCAs: roots}
		if with.Certificate != "" {
			pair, err := tls.LoadX509KeyPair(with.Certificate, with.Key)
			if err != nil {
				panic(err)
			}
			config.Certificates = []tls.Certificate{pair}
		}
		options = append(options, kgo.DialTLSConfig(config))
	}
	switch with.Mechanism {
	case "PLAIN":
		options = append(options, kgo.SASL(plain.Auth{User: with.User, Pass: with.Password}.AsMechanism()))
	case "SCRAM-SHA-256":
		options = append(options, kgo.SASL(scram.Auth{User: with.User, Pass: with.Password}.AsSha256Mechanism()))
	case "SCRAM-SHA-512":
		options = append(options, kgo.SASL(scram.Auth{User: with.User, Pass: with.Password}.AsSha512Mechanism()))
	case "OAUTHBEARER":
		options = append(options, kgo.SASL(oauth.Auth{Token: with.Token}.AsMechanism()))
	}
	return options
}
