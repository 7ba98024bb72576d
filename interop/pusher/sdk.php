<?php

/** pusher.php, driven over standard input: first a line with the app, then a call per line, each answered by a line of JSON. */

require __DIR__.'/pusher.php';

$pusher = new Pusher\Pusher(json_decode(fgets(STDIN), true));
while (($line = fgets(STDIN)) !== false) {
    ['method' => $method, 'parameters' => $parameters] = json_decode($line, true);
    try {
        $answer = ['result' => $pusher->$method(...$parameters)];
    } catch (Pusher\ApiErrorException $error) {
        $answer = ['refused' => ['name' => 'ApiErrorException', 'text' => "{$error->getCode()}: {$error->getMessage()}"]];
    } catch (Throwable $error) {
        $answer = ['failure' => (string) $error];
    }
    echo json_encode($answer, JSON_UNESCAPED_SLASHES), "\n";
}
