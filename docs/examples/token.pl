#!/usr/bin/env perl
# An access token for the resource that is given, with core modules alone.
use strict;
use warnings;
use IO::Socket::UNIX;
use JSON::PP;

# Dies with the broker's explanation if it gives none.
sub token {
    my ($resource) = @_;
    my $path = $ENV{ARCBROKER_SOCKET} || '/run/arcbroker/token.sock';
    my $broker = IO::Socket::UNIX->new(Peer => $path) or die "$path: $!\n";
    (my $encoded = $resource) =~ s/([^A-Za-z0-9._~-])/sprintf '%%%02X', ord $1/ge;
    print {$broker} "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=$encoded HTTP/1.1\r\n",
        "Host: localhost\r\nMetadata: true\r\nConnection: close\r\n\r\n";
    my ($head, $body) = split /\r\n\r\n/, do { local $/; <$broker> }, 2;
    my $answer = decode_json($body);
    die "$answer->{error_description}\n" if $head !~ m{^HTTP/1.1 200 };
    return $answer->{access_token};
}

die "usage: token.pl RESOURCE\n" if @ARGV != 1;
print token($ARGV[0]), "\n";
