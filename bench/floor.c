/* What any broker does at least: takes requests from TCP connections and writes them to files, one for each connection.
 *
 *   floor FOLDER flush|page-cache
 *
 * Prints the port that it listens on. It looks at nothing but a request's length, writes the whole request, and
 * answers with zeros, which saturate.py takes for "no error". If asked to, it waits for the disk before: a second thread
 * flushes all that has been written during its last flush. What it costs is the kernel's part.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_BYTES_MAX (1 << 20)
#define ANSWER_BYTES 100

static const char *folder;
static bool flushes;
static atomic_int files;

static void die(const char *what) {
        perror(what);
        exit(1);
}

/* One connection, its file, and how many of its requests are in the file and on the disk. */
struct lane {
        int peer, file;
        pthread_mutex_t lock;
        pthread_cond_t wake;
        unsigned written, durable;
        bool has_ended;
};

/* Whether all of them came before the peer closed. */
static bool receive(int peer, void *bytes, size_t count) {
        return recv(peer, bytes, count, MSG_WAITALL) == (ssize_t)count;
}

static bool answer(const struct lane *lane) {
        uint32_t zeros[1 + ANSWER_BYTES / 4] = {htonl(ANSWER_BYTES)};
        return send(lane->peer, zeros, sizeof(zeros), MSG_NOSIGNAL) == (ssize_t)sizeof(zeros);
}

/* Flushes what has been written meanwhile in one go, and answers all of it. */
static void *flush(void *argument) {
        struct lane *lane = argument;
        pthread_mutex_lock(&lane->lock);
        for (;;) {
                while (lane->written == lane->durable && !lane->has_ended)
                        pthread_cond_wait(&lane->wake, &lane->lock);
                unsigned count = lane->written - lane->durable;
                if (!count)
                        break;
                pthread_mutex_unlock(&lane->lock);
                if (fdatasync(lane->file))
                        die("fdatasync");
                for (unsigned number = 0; number < count && answer(lane); number++) {
                }
                pthread_mutex_lock(&lane->lock);
                lane->durable += count;
        }
        pthread_mutex_unlock(&lane->lock);
        return NULL;
}

static void written(struct lane *lane) {
        pthread_mutex_lock(&lane->lock);
        lane->written++;
        pthread_cond_signal(&lane->wake);
        pthread_mutex_unlock(&lane->lock);
}

static void *serve(void *argument) {
        struct lane lane = {.peer = (int)(intptr_t)argument, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
        char path[4096];
        snprintf(path, sizeof(path), "%s/floor-%d", folder, atomic_fetch_add(&files, 1));
        lane.file = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
        char *request = malloc(REQUEST_BYTES_MAX);
        pthread_t flusher;
        if (lane.file < 0 || !request || (flushes && pthread_create(&flusher, NULL, flush, &lane)))
                die(path);
        uint32_t length;
        while (receive(lane.peer, &length, sizeof(length))) {
                length = ntohl(length);
                if (length > REQUEST_BYTES_MAX) {
                        fprintf(stderr, "floor: a request of %u bytes\n", length);
                        exit(1);
                }
                if (!receive(lane.peer, request, length))
                        break;
                if (write(lane.file, request, length) != (ssize_t)length)
                        die(path);
                if (flushes)
                        written(&lane);
                else if (!answer(&lane))
                        break;
        }
        if (flushes) {
                pthread_mutex_lock(&lane.lock);
                lane.has_ended = true;
                pthread_cond_signal(&lane.wake);
                pthread_mutex_unlock(&lane.lock);
                pthread_join(flusher, NULL);
        }
        free(request);
        close(lane.file);
        close(lane.peer);
        return NULL;
}

int main(int count, char **arguments) {
        if (count != 3 || (strcmp(arguments[2], "flush") && strcmp(arguments[2], "page-cache"))) {
                fprintf(stderr, "floor FOLDER flush|page-cache\n");
                return 2;
        }
        folder = arguments[1];
        flushes = !strcmp(arguments[2], "flush");
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof(address);
        int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
        if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 16) ||
            getsockname(listener, (struct sockaddr *)&address, &size))
                die("listen");
        printf("%d\n", ntohs(address.sin_port));
        fflush(stdout);
        for (;;) {
                int peer = accept(listener, NULL, NULL);
                pthread_t thread;
                if (peer < 0 || setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
                    pthread_create(&thread, NULL, serve, (void *)(intptr_t)peer) || pthread_detach(thread))
                        die("accept");
        }
}
