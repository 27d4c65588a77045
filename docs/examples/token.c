/* An access token for the resource that is given, with the C library alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The whole answer in ANSWER: the broker closes the connection after it. */
static int ask(const char *resource, char *answer, size_t size) {
  const char *path = getenv("ARCBROKER_SOCKET");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s", path && *path ? path : "/run/arcbroker/token.sock");
  int broker = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (broker < 0 || connect(broker, (struct sockaddr *)&address, sizeof address) < 0) return -1;
  dprintf(broker, "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=%s HTTP/1.1\r\n"
                  "Host: localhost\r\nMetadata: true\r\nConnection: close\r\n\r\n", resource);
  size_t used = 0;
  for (ssize_t got; used < size - 1 && (got = read(broker, answer + used, size - 1 - used)) > 0;) used += got;
  answer[used] = 0;
  return close(broker);
}

/* The text of a member of the broker's flat documents, cut out in place; a token has nothing that is escaped. */
static char *member(char *answer, const char *name) {
  char *text = strstr(answer, name), *end = text ? text += strlen(name) : NULL;
  while (end && *end && *end != '"') end += *end == '\\' && end[1] ? 2 : 1;
  return end && *end ? (*end = 0, text) : NULL;
}

int main(int count, char **arguments) {
  static char answer[1 << 20];
  if (count != 2 || ask(arguments[1], answer, sizeof answer) < 0) return perror("token"), 1;
  int issued = strncmp(answer, "HTTP/1.1 200 ", 13) == 0;
  char *text = member(answer, issued ? "\"access_token\":\"" : "\"error_description\":\"");
  fprintf(issued && text ? stdout : stderr, "%s\n", text ? text : "the broker's answer is not understood");
  return !(issued && text);
}
